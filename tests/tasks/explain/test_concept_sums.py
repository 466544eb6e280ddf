from dataclasses import replace

import numpy as np
import pytest

from neuron_atlas.tasks.concepts.presence import index_words, patch_coverage, token_words, words_of
from neuron_atlas.tasks.explain.concept_sums import (
    ConceptSums,
    add_up,
    text_concepts,
    visual_concepts,
)
from neuron_atlas.tasks.samples.catalog import Catalog
from tests.one_process import Described

IDS = [5, 2, 9, 11]
NEURONS, SAMPLES = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 1, 2, 3, 0])
"""Neuron 2 has no sample."""


@pytest.fixture(scope="module")
def catalog(scenes: Described) -> Catalog:
    return scenes.catalog()


def drawn(role_tokens: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=role_tokens[place]).astype(np.float32) for place in SAMPLES]


def by_hand(names: list[str], presence: list[dict[str, np.ndarray]], activations) -> dict:
    """Pearson's r by neuron and concept, from concatenated tokens."""
    found = {}
    for neuron in (0, 1, 3):
        chosen = np.flatnonzero(neuron == NEURONS)
        real = np.concatenate([activations[place] for place in chosen])
        for name in {name for place in chosen for name in presence[SAMPLES[place]]}:
            shown = np.concatenate(
                [
                    presence[SAMPLES[place]].get(name, np.zeros(len(activations[place])))
                    for place in chosen
                ]
            )
            flat = shown.std() < 1e-9 or real.std() < 1e-9
            found[neuron, name] = 0 if flat else np.corrcoef(real, shown)[0, 1]
    return found


def correlations(sums: ConceptSums) -> dict:
    entries = zip(sums.neuron.tolist(), sums.concept.tolist(), sums.correlations(), strict=True)
    return {(neuron, sums.names[concept]): r for neuron, concept, r in entries}


def check(sums: ConceptSums, presence: list[dict[str, np.ndarray]], activations) -> None:
    expected = by_hand(sums.names, presence, activations)
    found = correlations(sums)
    assert set(found) == set(expected)
    assert [found[key] for key in expected] == pytest.approx(list(expected.values()), abs=1e-9)


def words(catalog: Catalog):
    return index_words([catalog[number] for number in IDS])


def test_visual_sums_are_those_of_every_token(catalog):
    activations = drawn([catalog[number].n_visual for number in IDS])
    concepts = visual_concepts(catalog, IDS, words(catalog))
    presence = [
        {truth.name: patch_coverage(truth, catalog[number]) for truth in catalog.concepts(number)}
        for number in IDS
    ]
    check(add_up(activations, NEURONS, SAMPLES, 4, concepts), presence, activations)


def test_samples_with_and_without_ground_truth_are_added_up_together(catalog):
    some = replace(catalog, truths={number: catalog.concepts(number) for number in IDS[:2]})
    activations = drawn([catalog[number].n_visual for number in IDS])
    concepts = visual_concepts(some, IDS, words(catalog))
    presence = [
        {truth.name: patch_coverage(truth, some[number]) for truth in some.concepts(number)}
        or dict.fromkeys(words_of(some[number].text), np.ones(some[number].n_visual))
        for number in IDS
    ]
    check(add_up(activations, NEURONS, SAMPLES, 4, concepts), presence, activations)


def test_text_sums_are_those_of_every_token(catalog):
    activations = drawn([len(catalog[number].tokens) for number in IDS])
    said = [np.array(token_words(catalog[number])) for number in IDS]
    presence = [{word: (of == word) * 1.0 for word in set(of.tolist()) - {""}} for of in said]
    sums = add_up(activations, NEURONS, SAMPLES, 4, text_concepts(IDS, words(catalog)))
    check(sums, presence, activations)
    assert sums.n.tolist()[2:] == [0, len(activations[-1])]


def test_an_activation_of_zero_counts_where_others_are_negative(catalog):
    """A product of sparse matrices has no entry for a sum of 0."""
    said = [np.array(token_words(catalog[number])) for number in IDS]
    activations = [(said[place] == "a") * 1.0 - 1 for place in SAMPLES]
    sums = add_up(activations, NEURONS, SAMPLES, 4, text_concepts(IDS, words(catalog)))
    assert correlations(sums)[0, "a"] == pytest.approx(1)


def test_activations_that_do_not_fit_their_sample_are_refused(catalog):
    activations = drawn([len(catalog[number].tokens) + 1 for number in IDS])
    with pytest.raises(ValueError, match="differ in number"):
        add_up(activations, NEURONS, SAMPLES, 4, text_concepts(IDS, words(catalog)))
