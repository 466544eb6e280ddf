"""The test over samples: does an explanation beat every control, and 0, on other samples, too?"""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import SIMULATIONS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.score.correlation import cross_sums, real_sums
from neuron_atlas.tasks.score.paired import paired_p
from neuron_atlas.tasks.score.score import score_neurons
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.significance import add_significance

NAN = float("nan")


def sums_of(real: np.ndarray, *predicted: np.ndarray) -> np.ndarray:
    """Sums [1 + predictions, 3, 2 roles, samples] of arrays [samples, tokens]; all visual."""
    offsets = np.arange(len(real) + 1) * real.shape[1]
    flat = real.ravel()
    sides = [
        real_sums(flat, offsets),
        *(cross_sums(flat, one.ravel(), offsets) for one in predicted),
    ]
    return np.stack([np.stack([side, 0 * side], axis=1) for side in sides])


def p_of(real: np.ndarray, *predicted: np.ndarray) -> np.ndarray:
    """p over all, visual and text tokens of one explanation; the first half are exemplars."""
    exemplar = np.arange(len(real)) < len(real) // 2
    return paired_p(sums_of(real, *predicted), np.zeros(len(real), int), exemplar, 1)[:, 0]


def by_hand(real: np.ndarray, own: np.ndarray, control: np.ndarray | None) -> float:
    """The share of sign patterns that reach the difference, from the tokens themselves."""

    def parts(predicted: np.ndarray) -> np.ndarray:
        u, v = ((side - side.mean()) / side.std() for side in (real, predicted))
        return (u * v).sum(1) / real.size

    added = parts(own) - (0 if control is None else parts(control))
    if added.sum() <= 0:
        return 1.0
    patterns = np.array(list(product([1, -1], repeat=len(real))))
    return float((patterns @ added >= added.sum() - 1e-12).mean())


def test_p_is_the_largest_share_of_sign_patterns_that_reach_the_difference():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        real = rng.normal(size=(8, 5))
        own, other, empty = (
            share * real + rng.normal(size=real.shape) for share in rng.uniform(0, 0.8, 3)
        )
        expected = max(by_hand(real, own, rival) for rival in (other, empty, None))
        assert p_of(real, own, other, empty)[0] == pytest.approx(expected, abs=1e-12)


def test_an_undefined_control_is_not_tested_and_an_undefined_score_has_no_p():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(8, 5))
    own = real + rng.normal(size=real.shape)
    constant = np.ones_like(real)
    assert p_of(real, own, constant)[0] == p_of(real, own)[0] < 0.05
    assert np.isnan(p_of(real, constant, own)[0])
    assert np.isnan(p_of(real, own)[2])  # There is no text.


def test_with_many_samples_blocks_keep_their_share_of_exemplars():
    """40 samples in 16 blocks: p is as small as it can be if every block agrees."""
    rng = np.random.default_rng(1)
    real = rng.normal(size=(40, 5))
    assert p_of(real, real + 0.1 * rng.normal(size=real.shape))[0] == 1 / 2**16


@pytest.mark.parametrize("samples", [12, 32])
def test_p_is_small_by_chance_no_more_often_than_it_states(samples):
    """Two predictions that are equally good, over samples of unlike sizes of activations, whose
    tokens depend on each other."""
    rng = np.random.default_rng(samples)
    runs = 1500
    group = np.arange(runs).repeat(samples)
    of_sample = rng.lognormal(0, 0.5, (len(group), 1))

    def drawn() -> np.ndarray:
        return of_sample * (rng.normal(size=(len(group), 1)) + rng.normal(size=(len(group), 6)))

    real = drawn()
    exemplar = np.arange(len(group)) % 2 == 0
    sums = sums_of(real, real + drawn(), real + drawn())
    p = paired_p(sums, group, exemplar, runs)[0]
    for level in (0.01, 0.05, 0.2):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / runs)


NEURONS, SAMPLES, TOKENS = 240, 48, (8, 6)
CLAIMS = {"own": 0, "other": 1, "empty": 2}


def scores_of(skill: np.ndarray, sample_ids: np.ndarray) -> pa.Table:
    """Judged scores over some of the samples. skill: [NEURONS, claims], how much of the truth each
    claim has. The same neuron has the same truth and predictions, whichever samples are scored."""
    rows, neurons = [], []
    for neuron in range(NEURONS):
        rng = np.random.default_rng([9, neuron])
        truth = [
            rng.normal(size=(SAMPLES, n)) * rng.lognormal(0, 0.5, (SAMPLES, 1)) for n in TOKENS
        ]
        claims = [
            [share * side + rng.normal(size=side.shape) for side in truth]
            for share in skill[neuron]
        ]
        records = {
            i: ActivationRecord(i, *(side[i].astype(np.float32) for side in truth))
            for i in sample_ids.tolist()
        }
        split = [tuple(r for i, r in records.items() if i % 2 == odd) for odd in (0, 1)]
        neurons.append(Evidence(0, neuron, "text", 4.0, *split))
        rows += [
            {
                "layer": 0,
                "neuron": neuron,
                "explainer": "dissect",
                "simulator": "concept",
                "explanation": claim,
                "sample_id": i,
                "stratum": "random" if i % 2 else "exemplar",
                "purpose": "scorer",
                "visual": claims[place][0][i].astype(np.float16),
                "text": claims[place][1][i].astype(np.float16),
                "status": "ok",
                "reason": "",
            }
            for claim, place in CLAIMS.items()
            for i in sample_ids.tolist()
        ]
    simulations = pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)
    settings = ScoreSettings(resamples=100)
    scores = add_significance(score_neurons(simulations, {"scorer": neurons}, {}, {}, settings))
    return pa.Table.from_pylist([row for row in scores.to_pylist() if row["tokens"] == "all"])


HALVES = [np.flatnonzero(np.arange(SAMPLES) // 2 % 2 == half) for half in (0, 1)]


def test_neurons_that_are_called_on_half_of_the_samples_win_on_the_other_half():
    rng = np.random.default_rng(2)
    skill = np.abs(rng.normal(0, 0.15, (NEURONS, 3))) * [1, 0.5, 0.5]
    skill[::2, 0] += 0.15
    first, second = (scores_of(skill, half) for half in HALVES)
    replicates = second["margin"].to_numpy() > 0
    called = first["q"].to_numpy() <= 0.05
    won = first["margin"].to_numpy() > 0
    assert called.sum() > 0.25 * NEURONS
    assert not (called & ~won).any()
    assert replicates[called].mean() >= 0.9
    assert replicates[won & ~called].mean() < 0.9  # A margin alone says less.


def test_of_shuffled_explanations_at_most_a_share_of_q_is_called():
    """Wrong explanations are not equally wrong, and nothing else competes with them: over samples
    the better of the two wins rightly, so it must win among neurons, too."""
    rng = np.random.default_rng(3)
    skill = np.abs(rng.normal(0, 0.5, (NEURONS, 3)))
    skill[:, 2] = 0
    scores = scores_of(skill, np.arange(SAMPLES))
    assert (scores["p_paired"].to_numpy() <= 0.05).mean() > 0.2
    assert (scores["q"].to_numpy() <= 0.05).mean() <= 0.05
