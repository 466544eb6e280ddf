from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from neuron_atlas.tasks.concepts.formula import STRENGTHS, Atom
from neuron_atlas.tasks.concepts.predict import token_facts
from neuron_atlas.tasks.concepts.presence import patch_coverage, token_words, words_of
from neuron_atlas.tasks.explain.beam import search_formulas
from neuron_atlas.tasks.explain.candidates import CandidateFinder, Candidates
from neuron_atlas.tasks.samples.catalog import Catalog
from tests.one_process import Described

IDS = [5, 2, 9, 11, 17, 20]
SHOWS = 0.3
PLACES = {
    "top half": lambda row, column: row < 4,
    "left column": lambda row, column: column == 0,
    "corners": lambda row, column: (row < 2 or row > 5) and (column < 2 or column > 5),
    "bottom right quarter": lambda row, column: row > 3 and column > 3,
    "whole image": lambda row, column: True,
}


@pytest.fixture(scope="module")
def catalog(scenes: Described) -> Catalog:
    return scenes.catalog()


def find(catalog: Catalog, min_samples: int = 1) -> Candidates:
    finder = CandidateFinder(token_facts(catalog, sorted(catalog.samples)), min_samples)
    n_tokens = sum(catalog[i].n_visual + len(catalog[i].tokens) for i in IDS)
    x = np.random.default_rng(0).normal(size=n_tokens)
    return finder.find(IDS, x, 64 * len(IDS), ("visual", "text"))


def masks_of(candidates: Candidates) -> np.ndarray:
    """Where each candidate holds, float64 [candidates, tokens]."""
    return candidates.masks.toarray()[:, candidates.groups]


def mask_by_hand(catalog: Catalog, atom: Atom) -> np.ndarray | None:
    """Where an atom holds, token by token; None for what is not worked out here."""
    (name,) = atom.names
    visual, text = [], []
    for sample_id in IDS:
        sample = catalog[sample_id]
        shown = {t.name: patch_coverage(t, sample) for t in catalog.concepts(sample_id)}
        if not shown:
            shown = dict.fromkeys(words_of(sample.text), np.ones(sample.n_visual))
        said = [
            word or token.strip()
            for word, token in zip(token_words(sample), sample.tokens, strict=True)
        ]
        if atom.kind == "area":
            if name not in PLACES:
                return None
            visual += [PLACES[name](*divmod(place, 8)) for place in range(64)]
        elif atom.kind == "shows":
            visual += (shown.get(name, np.zeros(64)) > SHOWS).tolist()
        elif atom.kind == "edge":
            cover = shown.get(name, np.zeros(64))
            visual += ((cover > 0.05) & (cover < 0.95)).tolist()
        elif atom.kind == "near":
            grid = np.pad(shown.get(name, np.zeros(64)).reshape(8, 8), 1) > SHOWS
            visual += [
                bool(not grid[r + 1, c + 1] and grid[r : r + 3, c : c + 3].any())
                for r in range(8)
                for c in range(8)
            ]
        else:
            visual += [False] * sample.n_visual
        if atom.kind == "word":
            text += [one == name for one in said]
        elif atom.kind == "after":
            text += [False, *(one == name for one in said[:-1])]
        elif atom.kind == "before":
            text += [*(one == name for one in said[1:]), False]
        elif atom.kind == "sentence":
            ended = np.cumsum([0, *(one == "." for one in said)])[:-1]
            text += (ended == ("first", "second", "third").index(name)).tolist()
        else:
            text += [False] * len(said)
    return np.array([*visual, *text])


@pytest.mark.parametrize("n_true", [0, 3, 6])
def test_a_candidate_holds_where_all_its_atoms_do(catalog, n_true):
    some = replace(catalog, truths={number: catalog.concepts(number) for number in IDS[:n_true]})
    candidates = find(some)
    by_hand = [mask_by_hand(some, atom) for atom in candidates.atoms]
    kinds = {atom.kind for atom in candidates.atoms}
    borders = {"edge", "near"} if n_true else set()
    assert kinds == {"shows", "area", "word", "after", "before", "sentence"} | borders
    masks = masks_of(candidates).astype(bool)
    checked = 0
    for atoms, mask in zip(candidates.members, masks, strict=True):
        parts = [by_hand[atom] for atom in atoms]
        if all(part is not None for part in parts):
            checked += 1
            np.testing.assert_array_equal(mask, np.logical_and.reduce(parts))
    assert checked > 100


def test_every_word_and_concept_of_enough_samples_is_a_candidate(catalog):
    for min_samples in (1, 3):
        atoms = set(find(catalog, min_samples).atoms)
        said = [set(token_words(catalog[number])) - {""} for number in IDS]
        for word in set().union(*said):
            is_common = sum(word in one for one in said) >= min_samples
            assert (Atom("word", (word,)) in atoms) == is_common


def test_the_first_term_is_the_best_of_all(catalog):
    candidates = find(catalog)
    masks = masks_of(candidates)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=masks.shape[1]) + 2 * masks[rng.integers(len(masks))]
        weights = rng.uniform(1, 2, size=len(x))
        cover = np.array([np.cov(mask, x, aweights=weights) for mask in masks])
        r = cover[:, 0, 1] / np.sqrt(np.maximum(cover[:, 0, 0] * cover[:, 1, 1], 1e-12))
        worth = r - 0.01 * np.array([len(atoms) for atoms in candidates.members])
        (terms, found), *_ = search_formulas(x, weights, candidates, 1, 0.01, 1)
        single = np.array([len(atoms) == 1 for atoms in candidates.members])
        assert found == pytest.approx(r[single].max())
        (_, pair), *_ = search_formulas(x, weights, candidates, 2, 0.01, 1)
        assert pair == pytest.approx(r[worth.argmax()])
        assert len(terms) == 1


def test_longer_formulas_are_worth_more_and_their_correlation_is_right(catalog):
    candidates = find(catalog)
    masks = {
        candidates.atoms[atoms[0]]: mask
        for atoms, mask in zip(candidates.members, masks_of(candidates), strict=True)
        if len(atoms) == 1
    }
    x = np.random.default_rng(1).normal(size=len(candidates.groups))
    found = search_formulas(x, np.ones(len(x)), candidates, 8, 0.001, 3)
    assert len(found) > 3
    for terms, correlation in found:
        y = np.zeros(len(x))
        for term in terms:
            holds = np.prod([masks[atom] for atom in term.required], axis=0)
            holds *= np.prod([1 - masks[atom] for atom in term.excluded], axis=0)
            y = np.maximum(y, holds * STRENGTHS[term.strength])
        assert correlation == pytest.approx(np.corrcoef(x, y)[0, 1])
    gains = np.diff([correlation for _, correlation in found])
    assert (gains > 0).all()


def test_activations_that_do_not_vary_have_no_formula(catalog):
    candidates = find(catalog)
    x = np.full(len(candidates.groups), -2.0)
    assert search_formulas(x, np.ones(len(x)), candidates, 4, 0.01, 3) == []


def test_a_search_over_groups_finds_what_one_over_tokens_finds(catalog):
    candidates = find(catalog)
    assert candidates.masks.shape[1] < 0.6 * len(candidates.groups)
    by_token = replace(
        candidates,
        masks=csr_array(masks_of(candidates)),
        groups=np.arange(len(candidates.groups)),
    )
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=len(candidates.groups))
        weights = rng.uniform(1, 2, size=len(x))
        one, other = (
            search_formulas(x, weights, each, 6, 0.005, 3) for each in (candidates, by_token)
        )
        assert [terms for terms, _ in one] == [terms for terms, _ in other]
        assert [r for _, r in one] == pytest.approx([r for _, r in other])
