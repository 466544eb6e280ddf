"""Neurons with one and with two meanings, among texts whose words are drawn."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.analyse.clusters import find_clusters
from neuron_atlas.tasks.analyse.meanings import monosemanticity, word_vectors
from neuron_atlas.tasks.analyse.responses import responses
from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.analyse.words import Lexicon, build_lexicon, list_words
from neuron_atlas.tasks.artifacts import MOMENTS
from tests.tasks.analyse.patches import patches_of
from tests.tasks.exemplars import exemplar_table
from tests.tasks.report.synthetic import catalog, sample

SAMPLES, LENGTH = 240, 12
WORDS = [f" word{number}" for number in range(60)]
PLANTED = {"one": (" lion",), "two": (" lion", " stapler"), "three": (" lion", " stapler", " fog")}


def drawn_texts() -> dict[int, list[str]]:
    rng = np.random.default_rng(1)
    texts = {n: [WORDS[place] for place in rng.integers(60, size=LENGTH)] for n in range(SAMPLES)}
    for number, tokens in texts.items():
        # Every planted word has its own company.
        word = PLANTED["three"][number % 3]
        tokens[3:6] = [f"{word}-before", word, f"{word}-after"]
    return texts


TEXTS = drawn_texts()
CATALOG = catalog(*(sample(n, tokens=tuple(t), grid=(2, 2)) for n, t in TEXTS.items()))
LEXICON = build_lexicon(list_words(CATALOG))


def peaking_at(places: Sequence[tuple[int, int]]) -> list:
    """Exemplars that peak at a token of a sample."""
    return [(n, [0.0] * 4, [9.0 * (at == t) for t in range(LENGTH)]) for n, at in places]


def saying(words: Sequence[str], count: int = 36) -> list:
    places = [(n, t.index(word)) for n, t in TEXTS.items() for word in words if word in t]
    return peaking_at(places[:count])


def showing(count: int = 36) -> list:
    """Exemplars that peak in the image."""
    return [(n, [9.0, 0, 0, 0], [0.0] * LENGTH) for n in range(count)]


def tables_of(
    neurons: dict[int, list],
    lexicon: Lexicon = LEXICON,
    shows: Callable[[int], int] = lambda sample_id: sample_id,
    noise: float = 0.3,
    **settings,
) -> tuple[pa.Table, pa.Table]:
    moments = [
        {"layer": 2, "neuron": neuron, "max_visual": 9.0, "max_text": 9.0}
        | {"n_visual": 100, "n_text": 40, "positive_visual": 0.25, "positive_text": 0.5}
        for neuron in neurons
    ]
    exemplars, chosen = exemplar_table(neurons, 2), AnalyseSettings(**settings)
    table = pa.Table.from_pylist(moments, schema=MOMENTS.schema)
    seen = patches_of(exemplars, table, chosen, shows, noise)
    return responses(exemplars, table, lexicon, seen, chosen)


def rows_of(neurons: dict[int, list], lexicon: Lexicon = LEXICON, **settings) -> list[dict]:
    return tables_of(neurons, lexicon, **settings)[0].to_pylist()


@pytest.mark.parametrize(("name", "number"), [("one", 1), ("two", 2), ("three", 3)])
def test_a_neuron_has_as_many_meanings_as_were_planted(name, number):
    (row,) = rows_of({5: saying(PLANTED[name])})
    assert row["meanings"] == number
    # Of all pairs, about one in `number` is alike.
    assert row["monosemanticity"] == pytest.approx(0.95 / number, abs=0.12)


def test_a_neuron_that_fires_anywhere_is_not_alike_and_has_no_stable_groups():
    rng = np.random.default_rng(2)
    anywhere = peaking_at([(n, int(rng.integers(7, LENGTH))) for n in range(40)])
    (row,) = rows_of({5: anywhere})
    assert row["meanings"] == 1
    assert abs(row["monosemanticity"]) < 0.1


def test_each_exemplar_has_the_meaning_of_its_word_and_the_larger_comes_first():
    both = saying(PLANTED["one"], 24) + saying([" stapler"], 12)
    _, table = tables_of({5: both, 6: saying(PLANTED["one"])})
    assert set(table["neuron"].to_pylist()) == {5}
    for number, word in ((1, " lion"), (2, " stapler")):
        ids = [row["sample_id"] for row in table.to_pylist() if row["meaning"] == number]
        assert sorted(ids) == sorted(n for n, t in TEXTS.items() if word in t)[: len(ids)]
        assert len(ids) == (24, 12)[number - 1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_neuron_that_sees_several_things_has_as_many_meanings(number):
    (row,) = rows_of({5: showing()}, shows=lambda sample_id: sample_id % number)
    assert row["meanings"] == number
    assert row["monosemanticity"] == pytest.approx(0.92 / number, abs=0.12)


def test_each_image_has_the_meaning_of_what_it_shows_and_the_larger_comes_first():
    _, table = tables_of({5: showing()}, shows=lambda sample_id: int(sample_id % 3 == 0))
    rows = table.to_pylist()
    assert len(rows) == 36
    assert all(row["meaning"] == (2 if row["sample_id"] % 3 == 0 else 1) for row in rows)


def test_a_neuron_that_fires_at_any_patch_has_one_meaning_and_none_alike():
    (row,) = rows_of({5: showing()})
    assert row["meanings"] == 1
    assert abs(row["monosemanticity"]) < 0.1


def test_images_of_one_thing_are_split_in_at_most_five_percent_of_trials():
    found = [
        rows_of({5: showing()}, shows=lambda sample_id, one=one: one, noise=noise)[0]["meanings"]
        for one in range(25)
        for noise in (0.3, 0.8)
    ]
    assert np.mean(np.array(found) > 1) <= 0.05


def test_texts_do_not_decide_what_a_neuron_sees():
    """All images show the same, and their texts have different words."""
    (row,) = rows_of({5: showing()}, shows=lambda sample_id: 1)
    assert row["monosemanticity"] > 0.8


def test_few_exemplars_have_no_measure_and_a_limit_is_kept():
    few, many = rows_of(
        {5: saying([" lion"], count=4), 6: saying(PLANTED["three"])}, max_meanings=2
    )
    assert few["monosemanticity"] is few["meanings"] is None
    assert many["meanings"] <= 2


def test_a_neuron_does_not_depend_on_others():
    neurons = {n: saying(PLANTED[name], 20 + n) for n, name in enumerate(PLANTED)}
    together = rows_of(neurons)
    assert together == [row for key, value in neurons.items() for row in rows_of({key: value})]


def test_monosemanticity_is_the_weighted_mean_over_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(3, 7, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    weight = rng.random((3, 7))
    for found, its, w in zip(monosemanticity(vectors, weight), vectors, weight, strict=True):
        pairs = [(i, j) for i in range(7) for j in range(7) if i != j]
        by_hand = sum(w[i] * w[j] * its[i] @ its[j] for i, j in pairs)
        assert found == pytest.approx(by_hand / sum(w[i] * w[j] for i, j in pairs), abs=1e-6)


def test_one_cloud_is_rarely_split():
    rng = np.random.default_rng(4)
    cloud = rng.normal(size=(200, 40, 20)) + np.array([2.0] + [0.0] * 19)
    cloud /= np.linalg.norm(cloud, axis=2, keepdims=True)
    present = np.ones((200, 40), bool)
    found = find_clusters(cloud, present, cloud[:, 0], AnalyseSettings())
    assert (found.max(1) == 0).mean() > 0.98


@pytest.mark.parametrize("case", ["a word", "a word class", "anywhere"])
def test_exemplars_of_one_meaning_are_split_in_at_most_five_percent_of_trials(case):
    """One word in any company; three words that the texts use alike, in any shares; or none."""
    words = [" lion"] if case == "a word" else [" amber", " teal", " ochre"]
    rng = np.random.default_rng(5)
    texts, places = {}, []
    for number in range(SAMPLES):
        texts[number] = tokens = [WORDS[place] for place in rng.integers(60, size=LENGTH)]
        place = int(rng.integers(1, LENGTH - 1))
        places.append(place)
        tokens[place] = words[int(rng.integers(len(words)))]
        if case == "a word class":
            tokens[place - 1], tokens[place + 1] = " the", " ball"
    lexicon = build_lexicon(
        list_words(catalog(*(sample(n, tokens=tuple(t), grid=(2, 2)) for n, t in texts.items())))
    )
    of = {}
    for trial in range(200):
        share = dict(zip(words, rng.dirichlet(np.ones(len(words))), strict=True))
        weights = np.array([share[texts[n][place]] for n, place in enumerate(places)])
        drawn = rng.choice(SAMPLES, 36, replace=False, p=weights / weights.sum())
        peaks = rng.integers(LENGTH, size=SAMPLES) if case == "anywhere" else places
        of[trial] = peaking_at([(n, int(peaks[n])) for n in drawn.tolist()])
    found = [row["meanings"] for row in rows_of(of, lexicon)]
    assert np.mean([number > 1 for number in found]) <= 0.05


def test_words_have_vectors_of_their_own():
    vectors = word_vectors(["red", "green", "blue"])
    assert np.array_equal(vectors[1:2], word_vectors(["green"]))
    cosines = vectors @ vectors.T / vectors.shape[1]
    assert np.abs(cosines - np.eye(3)).max() < 0.25
