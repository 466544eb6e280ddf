"""An explanation against the same one level broader and narrower, on neurons whose truth is known.

A neuron here fires where a formula says, with noise.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neuron_atlas.tasks.concepts.formula import Atom, Formula, Term
from neuron_atlas.tasks.concepts.predict import token_facts
from neuron_atlas.tasks.concepts.sentence import read_explanation, read_formula, write_explanation
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.score.score import score_neurons
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.simulate.concept import ConceptSimulator
from neuron_atlas.tasks.simulate.control import ExplainedNeuron
from neuron_atlas.tasks.simulate.levels import Level, levels, neuron_levels
from neuron_atlas.tasks.simulate.rows import simulate_neurons
from neuron_atlas.tasks.subject.settings import DescribeSettings
from tests.one_process import describe

RED = 'Image regions that show "red"'
CIRCLE = 'The word "circle" in the text'
KEY = (0, 7)
OTHER = ExplainedNeuron(0, 8, "visual", 'Image regions that show "star" (r = 0.50 over 9 samples).')


@pytest.fixture(scope="module")
def catalog(subject, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder: Path = tmp_path_factory.mktemp("levels")
    given = DescribeSettings(text_source="given")
    return describe(subject, Scenes(count=160, seed=5), folder, given).catalog()


def claim(sentence: str) -> str:
    formula = read_formula(sentence)
    assert formula
    return write_explanation(formula, [0.5], 9)


def firing_on(catalog: Catalog, sentence: str) -> dict[str, Evidence]:
    """The evidence of a neuron that fires where a formula says, by purpose."""
    ids = sorted(catalog.samples)
    facts = token_facts(catalog, ids)
    formula = read_formula(sentence)
    assert formula
    rng = np.random.default_rng(3)
    records = []
    for number, visual, text in zip(ids, *facts.predict(formula, ids), strict=True):
        traces = [side + 0.2 * np.abs(rng.normal(size=len(side))) for side in (visual, text)]
        records.append(ActivationRecord(number, *(one.astype(np.float32) for one in traces)))
    peaks = [max(np.concatenate([one.visual, one.text])) for one in records]
    ranked = [records[place] for place in np.argsort(-np.array(peaks), kind="stable")]
    exemplars, random = ranked[:36], [ranked[36 + k] for k in rng.permutation(len(ranked) - 36)]
    return {
        purpose: Evidence(
            *KEY, "visual", 1.0, tuple(exemplars[start::3]), tuple(random[start:48:3])
        )
        for start, purpose in enumerate(("explainer", "scorer", "calibration"))
    }


def scored(catalog: Catalog, evidence: Mapping[str, Evidence], text: str) -> dict:
    of = {purpose: [one] for purpose, one in evidence.items()}
    simulations = simulate_neurons(
        ConceptSimulator(),
        "dissect",
        of["scorer"],
        of["calibration"],
        {KEY: ExplainedNeuron(*KEY, "visual", text)},
        {KEY: OTHER},
        catalog,
        CallOptions(),
        levels=neuron_levels({KEY: text}, of["explainer"], catalog),
    )
    texts = {number: sample.tokens for number, sample in catalog.samples.items()}
    rows = score_neurons(simulations, of, texts, {}, ScoreSettings()).to_pylist()
    return next(row for row in rows if row["tokens"] == "all")


@pytest.mark.parametrize(
    ("truth", "called"),
    [
        (RED, ["broader"]),
        (CIRCLE, ["broader", "narrower"]),
        ('The words "large" or "small" in the text', ["broader", "narrower"]),
    ],
)
def test_the_right_explanation_beats_a_broader_and_a_narrower_one(catalog, truth, called):
    row = scored(catalog, firing_on(catalog, truth), claim(truth))
    assert row["correlation"] > row["control_broader"] + 0.05
    assert row["correlation"] > row["control_narrower"] + 0.05
    # Few samples hold red, so the test of its narrower claim has little power.
    assert all(row[f"p_{level}"] < 0.05 for level in called)
    assert read_explanation(row["broader_claim"])
    assert read_explanation(row["narrower_claim"])


@pytest.mark.parametrize(
    ("truth", "too_broad"),
    [
        (RED, 'Image regions that show "blue", "green" or "red"'),
        (CIRCLE, 'The words "circle", "square" or "triangle" in the text'),
        ('The word "is" before "large" in the text', 'The word "is" in the text'),
    ],
)
def test_a_too_broad_explanation_does_not_beat_the_narrower_one(catalog, truth, too_broad):
    row = scored(catalog, firing_on(catalog, truth), claim(too_broad))
    assert row["control_narrower"] > row["correlation"] + 0.05
    assert row["p_narrower"] == 1


@pytest.mark.parametrize(
    ("truth", "too_narrow"),
    [
        ('The words "circle" or "square" in the text', CIRCLE),
        ('Image regions that show "blue" or "red"', RED),
        ('The word "is" in the text', 'The word "is" before "large" in the text'),
    ],
)
def test_a_too_narrow_explanation_does_not_beat_the_broader_one(catalog, truth, too_narrow):
    row = scored(catalog, firing_on(catalog, truth), claim(too_narrow))
    assert row["control_broader"] > row["correlation"] + 0.05
    assert row["p_broader"] == 1


def test_levels_are_no_part_of_the_margin_and_change_no_other_column(catalog, monkeypatch):
    evidence = firing_on(catalog, 'The words "circle" or "square" in the text')
    with_levels = scored(catalog, evidence, claim(CIRCLE))
    strongest = max(0, *(with_levels[f"control_{one}"] or 0 for one in ("other", "empty", "blind")))
    assert with_levels["margin"] == pytest.approx(with_levels["correlation"] - strongest, abs=1e-6)
    nothing = {KEY: {"broader": Level(None, "not here"), "narrower": Level(None, "nor here")}}
    monkeypatch.setattr(f"{__name__}.neuron_levels", lambda *_: nothing)
    without = scored(catalog, evidence, claim(CIRCLE))
    assert without["reason"].endswith("no broader claim: not here; no narrower claim: nor here")
    changed = {name for name in without if without[name] != with_levels[name]}
    kinds = ("{}_claim", "control_{}", "p_{}")
    expected = {kind.format(one) for kind in kinds for one in ("broader", "narrower")}
    assert changed == expected | {"reason"}
    assert all(without[name] is None for name in expected)


def test_free_words_get_a_clause_that_the_simulator_reads(catalog):
    evidence = firing_on(catalog, 'The words "circle" or "square" in the text')
    row = scored(catalog, evidence, 'This neuron responds to the word "circle" in the text.')
    assert row["broader_claim"].startswith(
        'This neuron responds to the word "circle" in the text. The word'
    )
    assert '"square"' in row["broader_claim"]
    assert row["control_broader"] > row["correlation"] + 0.05
    assert row["narrower_claim"] is row["control_narrower"] is row["p_narrower"] is None
    assert "no narrower claim: the explanation is in free words" in row["reason"]


def test_some_explanations_have_no_level(catalog):
    evidence = firing_on(catalog, RED)["explainer"]
    facts = token_facts(catalog, evidence.sample_ids)
    assert levels("", evidence, facts)["broader"].reason.endswith("names no word or concept")
    whole = Formula((Term("visual", (Atom("area", ("whole image",)),)),))
    found = levels(write_explanation(whole, [0.1], 9), evidence, facts)
    assert found["broader"].text is None
    assert "1.5 times" in found["broader"].reason
    assert found["narrower"].text


def test_a_claim_has_levels_where_no_image_has_concepts(catalog):
    """There, every word of the text covers the whole image, so nothing has an edge."""
    blank = replace(catalog, truths={})
    evidence = firing_on(blank, RED)["explainer"]
    found = levels(claim(RED), evidence, token_facts(blank, evidence.sample_ids))
    assert read_explanation(found["narrower"].text)


def test_levels_depend_on_the_neurons_own_samples_alone(catalog):
    one, other = (firing_on(catalog, text)["explainer"] for text in (RED, CIRCLE))
    other = replace(other, neuron=8)
    texts = {KEY: claim(RED), (0, 8): claim(CIRCLE)}
    together = neuron_levels(texts, [one, other], catalog)
    assert together[KEY] == neuron_levels(texts, [one], catalog)[KEY]
    assert neuron_levels(texts, [], catalog) == {}
