"""A neuron of two words gets two explanations that name them, each scored on its own samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import MEANING_EXPLANATIONS, MEANINGS
from neuron_atlas.tasks.concepts.presence import token_words
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.evidence.meanings import read_members, split_by_meaning
from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.explain.dissect import Dissect
from neuron_atlas.tasks.explain.rows import meaning_rows
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.score.meanings import ScoredMeaning, score_meanings
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.simulate.concept import ConceptSimulator
from neuron_atlas.tasks.simulate.rows import simulate_claims
from neuron_atlas.tasks.simulate.simulator import NO_PREDICTION
from tests.tasks.report.synthetic import catalog as made_catalog
from tests.tasks.report.synthetic import sample

WORDS = ("lion", "stapler")


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Of four texts, one has the first word, one the second, and two have neither."""
    rng = np.random.default_rng(3)
    samples = []
    for number in range(160):
        tokens = [f" word{place}" for place in rng.integers(40, size=10)]
        if number % 4 < len(WORDS):
            tokens[int(rng.integers(10))] = f" {WORDS[number % 4]}"
        samples.append(sample(number, tokens=tuple(tokens), grid=(2, 2)))
    return made_catalog(*samples)


def record(catalog: Catalog, number: int) -> ActivationRecord:
    """The neuron fires at both words, wherever they are."""
    fires = [3.0 * (word in WORDS) for word in token_words(catalog[number])]
    visual = np.zeros(catalog[number].n_visual, np.float32)
    return ActivationRecord(number, visual, np.array(fires, np.float32))


def words_of(catalog: Catalog, number: int) -> set[str]:
    return set(token_words(catalog[number])) & set(WORDS)


@pytest.fixture(scope="module")
def planted(catalog: Catalog) -> tuple[Evidence, Evidence, dict[int, dict[int, frozenset[int]]]]:
    """Evidence of explainer and scorer, and the exemplars of each meaning."""
    of_word = [[n for n in catalog.samples if words_of(catalog, n) == {word}] for word in WORDS]
    exemplars = [numbers[:8] for numbers in of_word]
    others = [n for n in catalog.samples if n not in {*exemplars[0], *exemplars[1]}]
    halves = []
    for half in (0, 1):
        its = [record(catalog, n) for numbers in exemplars for n in numbers[half::2]]
        random = [record(catalog, n) for n in others[half * 72 : half * 72 + 72]]
        halves.append(Evidence(1, 7, "text", 3.0, tuple(its), tuple(random)))
    rows = [
        {"layer": 1, "neuron": 7, "sample_id": n, "meaning": meaning}
        for meaning, numbers in enumerate(exemplars, 1)
        for n in numbers
    ]
    members = read_members(pa.Table.from_pylist(rows, schema=MEANINGS.schema))
    return halves[0], halves[1], members


def claims(planted, catalog: Catalog) -> list[str]:
    explaining, _, members = planted
    meanings = split_by_meaning([explaining], members, catalog.samples, 0.5)
    found = Dissect().explain([one.evidence for one in meanings], catalog, CallOptions())
    rows = meaning_rows("dissect", meanings, found)
    assert rows.schema.equals(MEANING_EXPLANATIONS.schema)
    assert rows["meaning"].to_pylist() == [1, 2]
    assert rows["n_exemplars"].to_pylist() == [8, 8]
    return rows["text"].to_pylist()


def scores(
    planted, catalog: Catalog, texts: list[str], whole: str, failing: str = ""
) -> list[dict]:
    _, scoring, members = planted
    meanings = split_by_meaning([scoring], members, catalog.samples, 0.5)
    asked = [
        (text, one.evidence.records)
        for one, own in zip(meanings, texts, strict=True)
        for text in (own, whole)
    ]
    made = simulate_claims(ConceptSimulator(), asked, catalog, CallOptions())
    if failing:
        made[0][0] = replace(NO_PREDICTION, status=failing, reason="why")
    strata = Strata((16, 0, 1000), 0, frozenset())
    scored = [
        ScoredMeaning(one, strata, (made[2 * n], made[2 * n + 1])) for n, one in enumerate(meanings)
    ]
    return score_meanings("dissect", "concept", scored, ScoreSettings()).to_pylist()


def test_each_meaning_is_explained_by_its_own_word(planted, catalog):
    for word, text in zip(WORDS, claims(planted, catalog), strict=True):
        assert text.startswith(f'The word "{word}" in the text (r = 1.00')


def test_each_meaning_scores_and_above_an_explanation_of_the_other_one(planted, catalog):
    texts = claims(planted, catalog)
    for whole, better in ((texts[0], 1), (texts[1], 0)):
        rows = scores(planted, catalog, texts, whole)
        assert [row["status"] for row in rows] == ["ok", "ok"]
        assert all(row["correlation"] > 0.99 for row in rows)
        assert rows[better]["gain"] > 0.5
        assert rows[better]["gain_low"] > 0
        assert rows[1 - better]["gain"] == pytest.approx(0, abs=1e-6)


def test_samples_of_the_other_meaning_are_neither_hits_nor_misses(planted, catalog):
    explaining, _, members = planted
    one, other = split_by_meaning([explaining], members, catalog.samples, 0.5)
    assert {each.sample_id for each in one.evidence.exemplars} <= members[7][1]
    for meaning, word in ((one, WORDS[0]), (other, WORDS[1])):
        strong = [each for each in meaning.evidence.random if each.text.max() == 3]
        assert all(word in words_of(catalog, each.sample_id) for each in strong)
        assert meaning.left_out
    silent = {each.sample_id for each in explaining.random if each.text.max() == 0}
    assert silent <= {each.sample_id for each in one.evidence.random}


def test_a_failure_that_may_pass_leaves_the_meaning_without_a_score(planted, catalog):
    texts = claims(planted, catalog)
    first, second = scores(planted, catalog, texts, texts[0], failing="rate_limited")
    assert (first["status"], first["reason"], first["correlation"]) == ("rate_limited", "why", None)
    assert second["status"] == "ok"
    first, _ = scores(planted, catalog, texts, texts[0], failing="malformed")
    assert first["status"] == "ok"


def test_a_meaning_without_an_explanation_has_no_score(planted, catalog):
    (one, _) = split_by_meaning([planted[1]], planted[2], catalog.samples, 0.5)
    row = score_meanings("d", "c", [ScoredMeaning(one, None, ())], ScoreSettings()).to_pylist()[0]
    assert (row["status"], row["correlation"]) == ("no_explanation", None)
