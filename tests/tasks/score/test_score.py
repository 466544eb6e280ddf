from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from tasks.artifacts import SCORES, SIMULATIONS, write_table
from tasks.evidence import Evidence, Excitation
from tasks.score.score import score_neurons
from tasks.score.settings import ScoreSettings

LAYER, NEURON = 3, 11
SETTINGS = ScoreSettings(resamples=200)
SAMPLES = tuple(range(6))


def real(sample_id: int) -> Excitation:
    """What a made-up neuron truly does at 4 visual and 2-4 text tokens."""
    rng = np.random.default_rng(sample_id)
    sizes = (4, 2 + sample_id % 3)
    return Excitation(sample_id, *(rng.normal(size=n).astype(np.float32) for n in sizes))


def evidence(neuron: int = NEURON, samples: Sequence[int] = SAMPLES) -> Evidence:
    seen = [real(sample_id) for sample_id in samples]
    return Evidence(LAYER, neuron, "text", 1.0, tuple(seen[::2]), tuple(seen[1::2]))


def simulated(
    claim: str,
    factor: float = 1.0,
    samples: Sequence[int] = SAMPLES,
    neuron: int = NEURON,
    status: str = "ok",
    bias: float = 0.0,
) -> list[dict]:
    """Predictions that are the truth times `factor`, plus noise of its own for each claim."""
    rows = []
    for sample_id in samples:
        rng = np.random.default_rng([sample_id, len(claim)])
        truth = real(sample_id)
        visual, text = (
            (factor * side + bias + (0.3 if factor else 0) * rng.normal(size=len(side)))
            for side in (truth.visual, truth.text)
        )
        ok = status == "ok"
        rows.append(
            {
                "layer": LAYER,
                "neuron": neuron,
                "explainer": "dissect",
                "simulator": "concept",
                "claim": claim,
                "claim_neuron": neuron,
                "sample_id": sample_id if ok else -1,
                "draw": "exemplar",
                "visual": visual.astype(np.float16) if ok else [],
                "text": text.astype(np.float16) if ok else [],
                "estimator": "",
                "status": status,
                "reason": "" if ok else "because",
            }
        )
    return rows


def scored(rows: list[dict], *neurons: Evidence, settings: ScoreSettings = SETTINGS) -> list[dict]:
    simulations = pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)
    table = score_neurons(simulations, neurons or (evidence(),), {}, settings)
    assert table.schema.equals(SCORES.schema)
    return table.to_pylist()


def by_hand(rows: list[dict]) -> float:
    """numpy's correlation over the concatenated visual and text tokens of all rows."""
    truths = [
        side
        for row in rows
        for side in (real(row["sample_id"]).visual, real(row["sample_id"]).text)
    ]
    predictions = [side for row in rows for side in (row["visual"], row["text"])]
    return float(np.corrcoef(np.concatenate(truths), np.concatenate(predictions))[0, 1])


def test_a_score_is_the_correlation_over_all_visual_and_text_tokens_beside_its_control():
    own, other = simulated("own"), simulated("other", factor=-0.2)
    (row,) = scored([*own, *other])
    assert row["correlation"] == pytest.approx(by_hand(own), abs=1e-6)
    assert row["control_other"] == pytest.approx(by_hand(other), abs=1e-6)
    assert row["margin"] == pytest.approx(by_hand(own) - by_hand(other), abs=1e-6)
    assert row["correlation"] > 0.9 > 0 > row["control_other"]
    assert row["ci_low"] < row["correlation"] < row["ci_high"]
    assert (row["status"], row["reason"], row["type"]) == ("ok", "", "text")


def test_a_score_counts_the_samples_and_tokens_of_its_own_claim():
    (row,) = scored([*simulated("own"), *simulated("other", samples=[0, 1])])
    assert row["n_samples"] == 6
    assert row["n_tokens"] == sum(4 + 2 + sample_id % 3 for sample_id in SAMPLES)


def test_a_sample_that_the_explainer_saw_is_refused():
    simulations = pa.Table.from_pylist(simulated("own"), schema=SIMULATIONS.schema)
    fine = {(LAYER, NEURON): frozenset([7, 8]), (LAYER, 99): frozenset(SAMPLES)}
    score_neurons(simulations, [evidence()], fine, SETTINGS)
    seen = {(LAYER, NEURON): frozenset([8, 4])}
    with pytest.raises(ValueError, match=r"neuron 3:11 would be scored on sample 4, which its"):
        score_neurons(simulations, [evidence()], seen, SETTINGS)


def test_an_opposite_prediction_scores_below_zero():
    (row,) = scored(simulated("own", factor=-1))
    assert row["correlation"] < -0.9


def test_a_neuron_without_an_explanation_has_no_score_and_says_why():
    (row,) = scored(simulated("own", samples=[0], status="no_explanation"))
    assert (row["status"], row["reason"], row["n_samples"]) == ("no_explanation", "because", 0)
    assert row["correlation"] is row["ci_low"] is row["control_other"] is row["margin"] is None


@pytest.mark.parametrize("status", ["no_samples", "failed", "malformed"])
def test_an_explanation_without_a_single_prediction_has_too_few_samples_and_says_why(status):
    (row,) = scored(simulated("own", samples=[0], status=status))
    assert (row["status"], row["reason"], row["n_samples"]) == ("too_few_samples", "because", 0)
    assert row["correlation"] is None


def test_too_few_samples_give_no_score():
    few = SAMPLES[:3]
    (row,) = scored([*simulated("own", samples=few), *simulated("other", samples=few)])
    assert (row["status"], row["correlation"], row["n_samples"]) == ("too_few_samples", None, 3)
    assert "score.min_samples is 4" in row["reason"]
    (row,) = scored(simulated("own", samples=few), settings=ScoreSettings(200, min_samples=3))
    assert row["correlation"] > 0.9


def test_a_prediction_that_says_the_same_everywhere_has_no_score():
    (row,) = scored([*simulated("own", factor=0), *simulated("other")])
    assert (row["status"], row["correlation"], row["margin"]) == ("no_variance", None, None)
    assert row["reason"] == "the prediction does not vary over the held-out samples"
    assert row["control_other"] > 0.9


def test_a_neuron_that_does_the_same_everywhere_has_no_score():
    flat = [
        Excitation(number, np.ones(4, np.float32), np.ones(2 + number % 3, np.float32))
        for number in SAMPLES
    ]
    (row,) = scored(simulated("own"), Evidence(LAYER, NEURON, "text", 1.0, tuple(flat), ()))
    assert row["status"] == "no_variance"
    assert row["reason"] == "the real activations do not vary over the held-out samples"


def test_a_score_without_a_control_says_so():
    (row,) = scored([*simulated("own"), *simulated("other", samples=[0], status="no_control")])
    assert (row["status"], row["control_other"], row["margin"]) == ("no_control", None, None)
    assert row["correlation"] > 0.9
    assert row["ci_low"] is not None


def test_a_control_that_says_the_same_everywhere_leaves_no_margin_but_the_score_stands():
    (row,) = scored([*simulated("own"), *simulated("other", factor=0)])
    assert (row["status"], row["control_other"], row["margin"]) == ("ok", None, None)
    assert row["correlation"] > 0.9
    assert "control" in row["reason"]


def test_predictions_that_failed_are_left_out():
    rows = [*simulated("own", samples=SAMPLES[:5]), *simulated("own", samples=[5], status="failed")]
    (row,) = scored(rows)
    assert row["n_samples"] == 5
    assert row["correlation"] == pytest.approx(by_hand(rows[:5]), abs=1e-6)


def test_every_neuron_is_scored_by_itself_in_the_order_of_the_simulations(tmp_path):
    rows = []
    for neuron, samples, factor in ((9, SAMPLES, 1.0), (2, SAMPLES[:4], -1.0), (5, SAMPLES, 0.1)):
        for claim in ("own", "other"):
            rows += simulated(claim, factor, samples, neuron)
    neurons = [evidence(neuron) for neuron in (2, 5, 9)]
    together = scored(rows, *neurons)
    assert [row["neuron"] for row in together] == [9, 2, 5]
    for row, seen in zip(together, (neurons[2], neurons[0], neurons[1]), strict=True):
        (alone,) = scored([r for r in rows if r["neuron"] == row["neuron"]], seen)
        assert alone == pytest.approx(row, abs=1e-6)
    write_table(pa.Table.from_pylist(together, schema=SCORES.schema), SCORES, tmp_path / "scores")


def test_no_simulations_are_no_scores():
    assert scored([]) == []


@pytest.mark.parametrize("wrong", [{"resamples": 99}, {"min_samples": 1}])
def test_settings_that_prove_nothing_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: must be at least"):
        ScoreSettings(**wrong)
