from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import spearmanr

from neuron_atlas.tasks.artifacts import SCORES, SIMULATIONS, write_table
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.score.score import score_neurons
from neuron_atlas.tasks.score.settings import ScoreSettings

LAYER, NEURON = 3, 11
SETTINGS = ScoreSettings(resamples=200, min_tokens=2)
SAMPLES = tuple(range(6))
ASIDE = (20, 21, 22, 23)
SHOWN = (30, 31, 32)
TEXTS = {number: [f" {number % 3}", " a", " b", " c"] for number in (*SAMPLES, *ASIDE, *SHOWN)}


def real(sample_id: int) -> ActivationRecord:
    """What a made-up neuron truly does at 4 visual and 2-4 text tokens."""
    rng = np.random.default_rng(sample_id)
    sizes = (4, 2 + sample_id % 3)
    # As it is kept, in float16.
    drawn = [rng.normal(size=n).astype(np.float16).astype(np.float32) for n in sizes]
    return ActivationRecord(sample_id, *drawn)


def evidence(neuron: int = NEURON, samples: Sequence[int] = SAMPLES) -> Evidence:
    seen = [real(sample_id) for sample_id in samples]
    return Evidence(LAYER, neuron, "text", 4.0, tuple(seen[::2]), tuple(seen[1::2]))


def simulated(
    claim: str,
    factor: float = 1.0,
    samples: Sequence[int] = SAMPLES,
    neuron: int = NEURON,
    status: str = "ok",
    noise: float = 0.3,
    **columns: object,
) -> list[dict]:
    """Predictions that are the truth times `factor`, plus noise of its own for each claim."""
    rows = []
    for sample_id in samples:
        rng = np.random.default_rng([sample_id, len(claim)])
        truth = real(sample_id)
        visual, text = (
            (factor * side + (noise if factor else 0) * rng.normal(size=len(side)))
            for side in (truth.visual, truth.text)
        )
        ok = status == "ok"
        rows.append(
            {
                "layer": LAYER,
                "neuron": neuron,
                "explainer": "dissect",
                "simulator": "concept",
                "explanation": claim,
                "explanation_neuron": neuron,
                "sample_id": sample_id if ok else -1,
                "stratum": "random" if sample_id % 2 else "exemplar",
                "purpose": "scorer",
                "visual": visual.astype(np.float16) if ok else [],
                "text": text.astype(np.float16) if ok else [],
                "sample_prediction": None,
                "estimator": "",
                "status": status,
                "reason": "" if ok else "because",
            }
            | columns
        )
    return rows


def scored(
    rows: list[dict],
    *neurons: Evidence,
    settings: ScoreSettings = SETTINGS,
    shown: Sequence[Evidence] = (),
    seen: dict | None = None,
    strata: dict | None = None,
) -> list[dict]:
    simulations = pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)
    given = neurons or (evidence(),)
    aside = [evidence(neuron.neuron, ASIDE) for neuron in given]
    table = score_neurons(
        simulations,
        {"scorer": given, "calibration": aside, "explainer": shown},
        TEXTS,
        seen or {},
        settings,
        strata,
    )
    assert table.schema.equals(SCORES.schema)
    return table.to_pylist()


def over_all(*given, **settings) -> list[dict]:
    """The rows over all tokens."""
    return [row for row in scored(*given, **settings) if row["tokens"] == "all"]


def sides(rows: list[dict], roles: Sequence[str] = ("visual", "text")) -> list[np.ndarray]:
    """Real and predicted activations of rows, over the concatenated tokens."""
    truths = [getattr(real(row["sample_id"]), role) for row in rows for role in roles]
    return [np.concatenate(truths), np.concatenate([row[role] for row in rows for role in roles])]


def by_hand(rows: list[dict], *roles: str) -> float:
    return float(np.corrcoef(*sides(rows, roles or ("visual", "text")))[0, 1])


def test_a_score_is_the_correlation_over_all_visual_and_text_tokens_beside_its_controls():
    own, other, empty = simulated("own"), simulated("other", -0.2), simulated("empty", 0.1)
    aside = simulated("own", samples=ASIDE, purpose="calibration")
    (row,) = over_all([*own, *other, *empty, *aside])
    assert row["correlation"] == pytest.approx(by_hand(own), abs=1e-6)
    assert row["control_other"] == pytest.approx(by_hand(other), abs=1e-6)
    assert row["control_empty"] == pytest.approx(by_hand(empty), abs=1e-6)
    assert row["correlation"] > 0.9 > row["control_empty"] > 0 > row["control_other"]
    assert row["ci_low"] < row["correlation"] < row["ci_high"]
    assert (row["status"], row["reason"], row["type"]) == ("ok", "", "text")


def test_a_margin_over_controls_below_zero_is_the_score_itself():
    """Who says nothing has 0: to be better than one who is wrong is no merit."""
    (row,) = over_all([*simulated("own"), *simulated("other", -0.2), *simulated("empty", -0.2)])
    assert max(row["control_other"], row["control_empty"]) < 0
    assert row["margin"] == row["correlation"] > 0.9
    assert (row["margin_low"], row["margin_high"]) == (row["ci_low"], row["ci_high"])
    (row,) = over_all([*simulated("own", -0.1), *simulated("other", -2)])
    assert row["control_other"] < row["correlation"] < 0
    assert row["margin"] == row["correlation"]


@pytest.mark.parametrize(("other", "empty"), [(0.2, -0.2), (-0.2, 0.2)])
def test_the_margin_is_over_the_highest_control(other, empty):
    rows = [*simulated("own"), *simulated("other", other), *simulated("empty", empty)]
    (row,) = over_all(rows)
    highest = max(row["control_other"], row["control_empty"])
    assert row["margin"] == pytest.approx(row["correlation"] - highest, abs=1e-6)
    assert row["margin_low"] < row["margin"] < row["margin_high"]


def test_visual_and_text_tokens_are_scored_apart_and_together():
    own = [*simulated("own", samples=SAMPLES[:3]), *simulated("own", -1.0, SAMPLES[3:])]
    whole, visual, text = scored([*own, *simulated("other")])
    assert [row["tokens"] for row in (whole, visual, text)] == ["all", "visual", "text"]
    assert visual["correlation"] == pytest.approx(by_hand(own, "visual"), abs=1e-6)
    assert text["correlation"] == pytest.approx(by_hand(own, "text"), abs=1e-6)
    assert whole["spearman"] == pytest.approx(spearmanr(*sides(own)).statistic, abs=1e-6)
    assert text["spearman"] == pytest.approx(spearmanr(*sides(own, ["text"])).statistic, abs=1e-6)
    assert (visual["n_tokens"], text["n_tokens"]) == (24, sum(2 + n % 3 for n in SAMPLES))
    assert whole["n_tokens"] == visual["n_tokens"] + text["n_tokens"]


def test_active_are_tokens_above_the_papers_thresholds():
    """Of a scale of 4, a visual token is active above 0.8 and a text token above 1.2."""
    _, visual, text = scored([*simulated("own"), *simulated("other")])
    truths = [
        np.concatenate([getattr(real(n), role) for n in SAMPLES]) for role in ("visual", "text")
    ]
    assert visual["n_active"] == (truths[0] > 0.8).sum() > 0
    assert text["n_active"] == (truths[1] > 1.2).sum() > 0
    assert visual["auroc"] > 0.9


def test_a_neuron_that_is_never_active_has_no_auroc_but_a_score():
    seen = [real(sample_id) for sample_id in SAMPLES]
    silent = Evidence(LAYER, NEURON, "text", 0.0, tuple(seen[::2]), tuple(seen[1::2]))
    (row,) = over_all([*simulated("own"), *simulated("other")], silent)
    assert (row["n_active"], row["auroc"], row["status"]) == (0, None, "ok")


def test_explained_variance_is_calibrated_on_the_calibration_samples():
    own = simulated("own", 3.0)
    aside = simulated("own", 3.0, ASIDE, purpose="calibration")
    (row,) = over_all([*own, *simulated("other"), *aside])
    x, y = sides(own)
    slope, intercept = np.polyfit(*sides(aside)[::-1], 1)
    missed = np.square(x - intercept - slope * y).sum()
    assert row["explained_variance"] == pytest.approx(1 - missed / np.square(x - x.mean()).sum())
    assert row["explained_variance_uncentered"] == pytest.approx(1 - missed / np.square(x).sum())
    assert row["n_calibration"] == len(ASIDE)
    in_sample = row["correlation"] ** 2
    assert row["explained_variance"] < in_sample
    (without,) = over_all([*own, *simulated("other")])
    assert (without["explained_variance"], without["n_calibration"]) == (None, 0)
    assert without["correlation"] == row["correlation"]


def test_detection_is_by_the_peak_of_the_predicted_trace():
    own = simulated("own")
    for row in own:  # Random samples (odd ids) have the higher peaks in text, all but one.
        row["text"] = np.full(len(row["text"]), 9.0 * (row["sample_id"] in (1, 3, 4)), np.float16)
        row["visual"] = np.full(4, float(row["sample_id"] % 2 == 0), np.float16)
    whole, visual, text = scored([*own, *simulated("other")])
    assert visual["detection_auroc"] == 1
    # Exemplars 0, 9, 0 against 9, 9, 0: one half of the ties, and 9 beats 0.
    assert text["detection_auroc"] == pytest.approx((2 * 0.5 + 1 + 2 * 0.5) / 9)
    # Peaks 1, 9, 1 against 9, 9, 0.
    assert whole["detection_auroc"] == pytest.approx((1 + 2 * 0.5 + 1 + 1) / 9)
    assert whole["detection_auroc_other"] is not None


def test_a_simulators_own_answer_detects_instead_where_it_gives_one_for_every_sample():
    own = simulated("own")
    for row in own:
        row["sample_prediction"] = float(row["sample_id"] % 2 == 0)
    whole, visual, _ = scored([*own, *simulated("other")])
    assert whole["detection_auroc"] == 1
    assert visual["detection_auroc"] < 1
    own[3]["sample_prediction"] = None
    assert over_all([*own, *simulated("other")])[0]["detection_auroc"] < 1


def test_balanced_accuracy_is_by_a_threshold_of_the_calibration_samples():
    own, aside = simulated("own"), simulated("own", 1.0, ASIDE, purpose="calibration")
    for row in (*own, *aside):
        row["sample_prediction"] = float(row["sample_id"] % 2 == 0)
    (row,) = over_all([*own, *simulated("other"), *aside])
    assert row["balanced_accuracy"] == 1
    own[0]["sample_prediction"] = 0.1
    (row,) = over_all([*own, *simulated("other"), *aside])
    assert row["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_the_blind_control_comes_from_the_explainers_samples():
    rows = [*simulated("own"), *simulated("other")]
    (without,) = over_all(rows)
    (row,) = over_all(rows, shown=[evidence(samples=SHOWN)])
    assert without["control_blind"] is None
    assert -1 < row["control_blind"] < 1
    assert row["margin"] == pytest.approx(
        row["correlation"] - max(row["control_blind"], row["control_other"]), abs=1e-6
    )
    (stranger,) = over_all(rows, shown=[evidence(99, SHOWN)])
    assert stranger["control_blind"] is None


def test_a_neuron_that_looks_at_one_place_is_predicted_without_any_explanation():
    def staring(sample_id: int) -> ActivationRecord:
        seen = real(sample_id)
        visual = 0.1 * seen.visual + np.array([0, 0, 5, 0], np.float32)
        return ActivationRecord(
            sample_id, visual.astype(np.float16).astype(np.float32), 0 * seen.text
        )

    def staring_evidence(samples: Sequence[int]) -> Evidence:
        seen = [staring(sample_id) for sample_id in samples]
        return Evidence(LAYER, NEURON, "visual", 5.0, tuple(seen[::2]), tuple(seen[1::2]))

    rows = [*simulated("own", noise=1), *simulated("other")]
    (row,) = over_all(rows, staring_evidence(SAMPLES), shown=[staring_evidence(SHOWN)])
    assert row["control_blind"] > 0.98
    assert row["margin"] < 0


def test_a_sample_that_the_explainer_saw_is_refused():
    rows = simulated("own")
    fine = {(LAYER, NEURON, "dissect"): frozenset([7, 8])}
    fine |= {(LAYER, 99, "dissect"): frozenset(SAMPLES), (LAYER, NEURON, "b"): frozenset(SAMPLES)}
    scored(rows, seen=fine)
    with pytest.raises(ValueError, match=r"neuron 3:11 would be scored on sample 4, which its"):
        scored(rows, seen={(LAYER, NEURON, "dissect"): frozenset([8, 4])})


def test_a_sample_that_was_calibrated_on_is_refused():
    rows = [*simulated("own"), *simulated("own", samples=[4], purpose="calibration")]
    with pytest.raises(ValueError, match=r"sample 4, which its predictions are calibrated on"):
        scored(rows)


def test_a_blind_control_made_from_scored_samples_is_refused():
    with pytest.raises(ValueError, match=r"sample 2, which its blind control is fitted on"):
        scored(simulated("own"), shown=[evidence(samples=(30, 2, 4))])


def test_a_prediction_of_another_length_than_its_sample_is_refused():
    own = simulated("own")
    own[2]["text"] = own[2]["text"][:-1]
    with pytest.raises(ValueError, match="different numbers of text tokens"):
        scored(own)


def test_an_opposite_prediction_scores_below_zero_and_explains_nothing():
    aside = simulated("own", -1, ASIDE, purpose="calibration")
    (row,) = over_all([*simulated("own", -1), *aside])
    assert row["correlation"] < -0.9
    assert row["auroc"] < 0.1
    assert row["explained_variance"] <= 0


def test_a_neuron_without_an_explanation_has_no_score_and_says_why():
    for row in scored(simulated("own", samples=[0], status="no_explanation")):
        assert (row["status"], row["reason"], row["n_samples"]) == ("no_explanation", "because", 0)
        measured = {name for name, value in row.items() if isinstance(value, float)}
        assert measured == set()


@pytest.mark.parametrize("status", ["no_samples", "failed", "malformed"])
def test_an_explanation_without_a_single_prediction_has_too_few_samples_and_says_why(status):
    (row,) = over_all(simulated("own", samples=[0], status=status))
    assert (row["status"], row["reason"], row["n_samples"]) == ("too_few_samples", "because", 0)
    assert row["correlation"] is None


def test_too_few_samples_give_no_score():
    few = SAMPLES[:3]
    rows = [*simulated("own", samples=few), *simulated("other", samples=few)]
    (row,) = over_all(rows)
    assert (row["status"], row["correlation"], row["n_samples"]) == ("too_few_samples", None, 2)
    assert "score.min_samples is 4" in row["reason"]
    (row,) = over_all(rows, settings=ScoreSettings(200, min_samples=2))
    assert row["correlation"] > 0.9


def failing(rows: list[dict], *lost: int) -> list[dict]:
    """The rows, the predictions of some samples having failed."""
    failed = {"visual": [], "text": [], "status": "malformed", "reason": "because"}
    return [row | failed if row["sample_id"] in lost else row for row in rows]


@pytest.mark.parametrize("claim", ["own", "other"])
def test_of_exemplars_and_random_samples_as_many_count_where_predictions_fail(claim):
    rows = {"own": simulated("own"), "other": simulated("other")}
    rows[claim] = failing(rows[claim], 1)
    settings = ScoreSettings(200, min_tokens=2, min_samples=4)
    (row,) = over_all([*rows["own"], *rows["other"]], settings=settings)
    assert (row["status"], row["n_samples"], row["n_exemplars"]) == ("ok", 4, 2)
    mix = "3 exemplars and 2 random samples have a prediction, 2 of each count"
    assert row["reason"].split("; ")[0] == mix
    # Of the exemplars 0, 2 and 4 the one in the middle makes room.
    kept = [one for one in simulated("own") if one["sample_id"] in (2, 3, 4, 5)]
    assert row["correlation"] == pytest.approx(by_hand(kept), abs=1e-6)


def test_without_a_single_random_sample_there_is_no_score():
    """A correlation over exemplars alone says nothing of the samples that leave a neuron cold."""
    for row in scored([*failing(simulated("own"), 1, 3, 5), *simulated("other")]):
        assert (row["status"], row["correlation"]) == ("too_few_samples", None)
        assert (row["n_samples"], row["n_exemplars"], row["margin"]) == (0, 0, None)
        mix = "3 exemplars and 0 random samples have a prediction, 0 of each count"
        assert row["reason"] == f"because; {mix}"


def test_what_else_is_undefined_beside_a_score_says_why():
    (row,) = over_all([*simulated("own"), *simulated("other")])
    assert (row["explained_variance"], row["balanced_accuracy"], row["status"]) == (
        None,
        None,
        "ok",
    )
    assert row["reason"] == (
        "no explained variance: no calibration sample is predicted; "
        "no balanced accuracy: no exemplar, or no random sample, to fit a threshold on"
    )
    flat = simulated("own", 0, ASIDE, purpose="calibration")
    (row,) = over_all([*simulated("own"), *simulated("other"), *flat])
    assert row["reason"] == (
        "no explained variance: the prediction does not vary over the calibration samples"
    )
    seen = [real(sample_id) for sample_id in SAMPLES]
    silent = Evidence(LAYER, NEURON, "text", 0.0, tuple(seen[::2]), tuple(seen[1::2]))
    aside = simulated("own", samples=ASIDE, purpose="calibration")
    (row,) = over_all([*simulated("own"), *simulated("other"), *aside], silent)
    assert (row["reason"], row["auroc"]) == ("no auroc: no token is active", None)


def wordless(*ids: int) -> tuple[list[dict], Evidence]:
    """Predictions for samples some of which have no text."""
    seen = [real(sample_id) for sample_id in SAMPLES]
    seen = [replace(one, text=one.text[:0]) if one.sample_id in ids else one for one in seen]
    rows = [*simulated("own"), *simulated("other")]
    rows = [row | {"text": []} if row["sample_id"] in ids else row for row in rows]
    return rows, Evidence(LAYER, NEURON, "text", 4.0, tuple(seen[::2]), tuple(seen[1::2]))


def test_detection_is_over_the_samples_that_have_such_tokens():
    rows, neuron = wordless(2)
    _, visual, text = scored(rows, neuron)
    assert visual["detection_auroc"] is not None
    peaks = {row["sample_id"]: max(row["text"]) for row in rows[:6] if len(row["text"])}
    pairs = [(peaks[one], peaks[other]) for one in (0, 4) for other in (1, 3, 5)]
    assert text["detection_auroc"] == pytest.approx(np.mean([one > other for one, other in pairs]))
    rows, neuron = wordless(0, 2, 4)
    _, visual, text = scored(rows, neuron)
    assert visual["detection_auroc"] is not None
    assert (text["status"], text["detection_auroc"]) == ("ok", None)
    assert "no detection: no exemplar, or no random sample, has such tokens" in text["reason"]


def test_too_few_tokens_give_no_score_over_them_alone():
    settings = ScoreSettings(200, min_tokens=20)
    whole, visual, text = scored([*simulated("own"), *simulated("other")], settings=settings)
    assert (whole["status"], visual["status"], text["status"]) == ("ok", "ok", "too_few_tokens")
    assert text["reason"] == "18 tokens, score.min_tokens is 20"
    assert text["correlation"] is text["spearman"] is text["margin"] is None


def test_a_prediction_that_says_the_same_everywhere_has_no_score():
    (row,) = over_all([*simulated("own", factor=0), *simulated("other")])
    assert (row["status"], row["correlation"], row["margin"]) == ("no_variance", None, None)
    assert row["reason"] == "the prediction does not vary over the held-out samples"
    assert row["control_other"] > 0.9


def test_a_prediction_may_vary_over_the_image_and_not_over_the_text():
    own = simulated("own")
    for row in own:
        row["text"] = np.zeros_like(row["text"])
    whole, visual, text = scored([*own, *simulated("other")])
    assert [row["status"] for row in (whole, visual, text)] == ["ok", "ok", "no_variance"]
    assert text["correlation"] is None


def without(rows: list[dict], role: str) -> list[dict]:
    """The rows of a simulator that says nothing of a role's tokens."""
    return [row | {role: None} for row in rows]


@pytest.mark.parametrize(("left_out", "role"), [("text", "visual"), ("visual", "text")])
def test_tokens_that_a_simulator_says_nothing_of_have_no_score_and_are_no_zeros(left_out, role):
    rows = [*simulated("own"), *simulated("other", -0.2), *simulated("empty", 0.1)]
    rows += simulated("own", 3.0, ASIDE, purpose="calibration")
    shown = [evidence(samples=SHOWN)]
    both = {row["tokens"]: row for row in scored(rows, shown=shown)}
    one = {row["tokens"]: row for row in scored(without(rows, left_out), shown=shown)}
    assert one[role] == pytest.approx(both[role])
    assert both[role]["explained_variance"] is not None
    row = one[left_out]
    assert (row["status"], row["n_tokens"]) == ("not_predicted", 0)
    assert row["reason"] == f"the simulator does not predict {left_out} tokens"
    assert {name for name, value in row.items() if isinstance(value, float)} == set()
    # Over all tokens that it predicts is over those of the other role, and says so.
    whole = {
        "tokens": "all",
        "reason": f"without {left_out} tokens, which the simulator does not predict",
    }
    assert one["all"] == pytest.approx(both[role] | whole)


def test_a_simulator_that_leaves_out_tokens_that_no_sample_has_leaves_out_nothing():
    def wordless(sample_id: int) -> ActivationRecord:
        return ActivationRecord(sample_id, real(sample_id).visual, np.empty(0, np.float32))

    seen = [wordless(sample_id) for sample_id in SAMPLES]
    neuron = Evidence(LAYER, NEURON, "visual", 4.0, tuple(seen[::2]), tuple(seen[1::2]))
    rows = without([*simulated("own"), *simulated("other", -0.2)], "text")
    whole, visual, text = scored(rows, neuron)
    assert whole["correlation"] == visual["correlation"] == pytest.approx(by_hand_visual(rows))
    assert text["status"] == "too_few_tokens"


def by_hand_visual(rows: list[dict]) -> float:
    return by_hand([row for row in rows if row["explanation"] == "own"], "visual")


@pytest.mark.parametrize("claim", ["own", "other"])
def test_a_role_that_is_left_out_of_one_prediction_is_left_out_of_all_for_the_neuron(claim):
    rows = {"own": simulated("own"), "other": simulated("other")}
    rows[claim][2]["text"] = None
    neighbour = [*simulated("own", neuron=12), *simulated("other", neuron=12)]
    found = scored([*rows["own"], *rows["other"], *neighbour], evidence(), evidence(12))
    assert [row["status"] for row in found[:3]] == ["ok", "ok", "not_predicted"]
    assert found[0]["correlation"] == found[1]["correlation"]
    assert [row["status"] for row in found[3:]] == ["ok"] * 3
    assert found[3]["correlation"] == pytest.approx(by_hand(simulated("own")), abs=1e-6)


def test_a_neuron_that_does_the_same_everywhere_has_no_score():
    flat = [
        ActivationRecord(number, np.ones(4, np.float32), np.ones(2 + number % 3, np.float32))
        for number in SAMPLES
    ]
    (row,) = over_all(simulated("own"), Evidence(LAYER, NEURON, "text", 1.0, tuple(flat), ()))
    assert row["status"] == "no_variance"
    assert row["reason"] == "the real activations do not vary over the held-out samples"


def test_a_score_without_a_control_says_so():
    rows = [*simulated("own"), *simulated("other", samples=[0], status="no_control")]
    (row,) = over_all([*rows, *simulated("empty", 0.1)])
    assert (row["status"], row["control_other"], row["margin"]) == ("no_control", None, None)
    assert row["correlation"] > 0.9 > row["control_empty"]
    assert row["ci_low"] is not None


def test_a_control_that_says_the_same_everywhere_leaves_the_margin_to_the_others():
    rows = [*simulated("own"), *simulated("other", factor=0)]
    (row,) = over_all(rows)
    assert (row["status"], row["control_other"]) == ("ok", None)
    assert row["margin"] == row["correlation"]  # Over 0: who says nothing is a control too.
    assert "the control's prediction does not vary" in row["reason"]
    (row,) = over_all([*rows, *simulated("empty", 0.1)])
    assert row["margin"] == pytest.approx(row["correlation"] - row["control_empty"], abs=1e-6)


def test_all_claims_are_scored_on_the_samples_that_each_has_a_prediction_for():
    own = [*simulated("own", samples=SAMPLES[:5])]
    failed = simulated("own", samples=[5], status="failed", sample_id=5)
    other = [*simulated("other", samples=SAMPLES[1:])]
    empty = [*simulated("empty", 0.1, samples=[0, 1])]
    (row,) = over_all([*own, *failed, *other, *empty])
    assert row["n_samples"] == 4
    assert row["n_exemplars"] == 2
    assert row["correlation"] == pytest.approx(by_hand(own[1:]), abs=1e-6)
    assert row["control_other"] == pytest.approx(by_hand(other[:-1]), abs=1e-6)
    # A claim with hardly any prediction would leave hardly a sample: it is no control then.
    assert row["control_empty"] is None


def test_every_explanation_is_scored_by_itself_in_the_order_of_the_simulations(tmp_path):
    rows = []
    for neuron, samples, factor in ((9, SAMPLES, 1.0), (2, SAMPLES[:4], -1.0), (5, SAMPLES, 0.1)):
        for claim in ("own", "other", "empty"):
            rows += simulated(claim, factor, samples, neuron)
    rows += simulated("own", 0.5, neuron=9, explainer="gpt4o")
    neurons = [evidence(neuron) for neuron in (2, 5, 9)]
    shown = [evidence(neuron, SHOWN) for neuron in (9, 5)]
    together = scored(rows, *neurons, shown=shown)
    names = [(row["neuron"], row["explainer"]) for row in together[::3]]
    assert names == [(9, "dissect"), (2, "dissect"), (5, "dissect"), (9, "gpt4o")]
    for place, name in enumerate(names):
        alone = scored(
            [row for row in rows if (row["neuron"], row["explainer"]) == name],
            *neurons,
            shown=shown,
        )
        for mine, row in zip(alone, together[3 * place : 3 * place + 3], strict=True):
            assert mine == pytest.approx(row, abs=1e-6)
    write_table(pa.Table.from_pylist(together, schema=SCORES.schema), SCORES, tmp_path / "scores")


def test_no_simulations_are_no_scores():
    assert scored([]) == []


NEAR = (40, 41, 42)
TEXTS |= {number: [" a", " b", " c", " d"] for number in NEAR}
STRATA = {(LAYER, NEURON, "dissect"): Strata((3, 30, 200), 32, frozenset([0, 1]))}


def with_near_misses(factor: float = 1.0) -> tuple[list[dict], Evidence]:
    rows = [*simulated("own"), *simulated("other", -0.2), *simulated("empty", 0.1)]
    for claim, its in (("own", factor), ("other", -0.2), ("empty", 0.1)):
        rows += simulated(claim, its, NEAR, stratum="near_miss")
    return rows, replace(evidence(), near_misses=tuple(map(real, NEAR)))


def test_the_tokens_of_a_sample_weigh_as_much_as_the_samples_that_it_stands_for():
    rows, neuron = with_near_misses()
    (row,) = over_all(rows, neuron, strata=STRATA)
    # Random sample 1 is predicted, so it is a near miss; 3 and 5 stand for the rest.
    weights = dict.fromkeys((0, 2, 4), 1.0) | dict.fromkeys((1, *NEAR), 30 / 4)
    weights |= dict.fromkeys((3, 5), 100.0)
    for column, claim in (("correlation", "own"), ("control_other", "other")):
        mine = [one for one in rows if one["explanation"] == claim]
        copied = np.repeat([weights[one["sample_id"]] for one in mine], [tokens(o) for o in mine])
        x, y = (np.concatenate([[*a, *b] for a, b in pairs]) for pairs in both(mine))
        spread = np.cov(x, y, aweights=copied)
        expected = spread[0, 1] / np.sqrt(spread[0, 0] * spread[1, 1])
        assert row[column] == pytest.approx(expected, abs=1e-6)
    assert (row["n_samples"], row["n_exemplars"], row["n_near_misses"]) == (9, 3, 3)


def tokens(row: dict) -> int:
    return len(row["visual"]) + len(row["text"])


def both(rows: list[dict]) -> list[list[tuple]]:
    truths = [real(row["sample_id"]) for row in rows]
    return [[(one.visual, one.text) for one in truths], [(r["visual"], r["text"]) for r in rows]]


def test_near_misses_change_the_score_and_none_of_the_published_measures():
    rows, neuron = with_near_misses(-1.0)
    (row,) = over_all(rows, neuron, strata=STRATA)
    (plain,) = over_all([one for one in rows if one["stratum"] != "near_miss"])
    assert row["correlation"] < plain["correlation"] == row["top_random_correlation"]
    for name in ("spearman", "auroc", "detection_auroc", "n_active"):
        assert row[name] == plain[name]


def test_near_misses_alone_are_no_score():
    rows, neuron = with_near_misses()
    lost = [row for row in rows if row["stratum"] != "random"]
    (row,) = over_all(lost, neuron, strata=STRATA)
    assert (row["status"], row["n_samples"], row["n_near_misses"]) == ("too_few_samples", 0, 0)


def test_an_explanation_that_predicts_no_sample_has_no_recall_and_says_so():
    nothing = {(LAYER, NEURON, "dissect"): Strata((3, 0, 230), 0, frozenset())}
    (row,) = over_all([*simulated("own"), *simulated("other")], strata=nothing)
    assert (row["status"], row["recall"]) == ("ok", None)
    assert "no recall: the explanation predicts no sample" in row["reason"]
    assert row["purity"] is not None
