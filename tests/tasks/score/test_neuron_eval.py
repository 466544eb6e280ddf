"""NeuronEval's two tests of a metric (Oikarinen, Yan and Weng 2025), on the whole scoring path.

A neuron fires at the positions of a concept. The score of the right explanation must fall if half
of the concept's samples are missing from the explanation, and if it names as many others in
addition. Path: exemplars by peak, random samples, their split, near misses, weights, scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import CLAIMS, SIMULATIONS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence, Purpose
from neuron_atlas.tasks.evidence.split import split_samples
from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.near_misses.choose import ChosenSamples, split_dataset
from neuron_atlas.tasks.near_misses.settings import NearMissSettings
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.score.score import score_neurons
from neuron_atlas.tasks.score.settings import ScoreSettings

SAMPLES, TOKENS, TOP_N, RANDOM = 23_000, 12, 50, 32
TRIALS = 100
EXPLANATIONS = ("right", "halved", "doubled", "tenfold")
NEAR = NearMissSettings()


@dataclass(frozen=True)
class Trial:
    """One neuron and its explanations. labels: bool [samples, tokens], the tokens that each names.
    near: its near misses. whole: its correlation over the whole dataset."""

    evidence: dict[Purpose, Evidence]
    strata: dict[str, Strata]
    labels: dict[str, np.ndarray]
    near: dict[str, list[int]]
    whole: dict[str, float]


def drawn_trial(seed: int, frequency: float) -> Trial:
    rng = np.random.default_rng([seed, int(1 / frequency)])
    order = rng.permutation(SAMPLES)
    count = round(frequency * SAMPLES)
    members = {
        "right": order[:count],
        "halved": order[: count // 2],
        "doubled": order[: 2 * count],
        "tenfold": order[: 10 * count],
    }
    where = rng.random((SAMPLES, TOKENS)).argsort(1) < 3
    labels = {}
    for name, ids in members.items():
        labels[name] = np.zeros((SAMPLES, TOKENS), dtype=bool)
        labels[name][ids] = where[ids]
    noise = np.abs(rng.standard_normal((SAMPLES, TOKENS), dtype=np.float32)) * np.float32(0.1)
    strength = rng.uniform(0.5, 1.5, (SAMPLES, 1)).astype(np.float32)
    real = (noise + labels["right"] * strength).astype(np.float16).astype(np.float32)
    exemplars = np.argsort(-real.max(1), kind="stable")[:TOP_N].tolist()
    is_exemplar = set(exemplars)
    chosen = [one for one in draw_random(range(SAMPLES), RANDOM, seed) if one not in is_exemplar]
    images = {one: {f"{one}.png"} for one in (*exemplars, *chosen)}
    purposes = split_samples(exemplars, chosen, images)

    def record(sample_id: int) -> ActivationRecord:
        return ActivationRecord(sample_id, np.empty(0, np.float32), real[sample_id])

    def of(purpose: str, ids: list[int]) -> list[int]:
        return [one for one in ids if purposes[one] == purpose]

    scored = frozenset((*of("scorer", exemplars), *of("scorer", chosen)))
    samples = ChosenSamples(frozenset(exemplars), frozenset(purposes) - scored, scored)
    strata, near = {}, {}
    for name, ids in members.items():
        strata[name], candidates = split_dataset(
            np.sort(ids).astype(np.int32), samples, SAMPLES, NEAR
        )
        near[name] = candidates[: NEAR.samples]
    evidence: dict[Purpose, Evidence] = {}
    for purpose in ("explainer", "calibration", "scorer"):
        kinds = [tuple(map(record, of(purpose, ids))) for ids in (exemplars, chosen)]
        drawn = {one for ids in near.values() for one in ids} if purpose == "scorer" else ()
        evidence[purpose] = Evidence(
            0,
            seed,
            "text",
            float(real.max()),
            *kinds,
            near_misses=tuple(map(record, sorted(drawn))),
        )
    whole = {
        name: float(np.corrcoef(one.ravel(), real.ravel())[0, 1]) for name, one in labels.items()
    }
    return Trial(evidence, strata, labels, near, whole)


def simulated(trial: Trial) -> list[dict]:
    """Every explanation predicts the tokens that it names; both controls predict noise."""
    rng = np.random.default_rng(0)
    scorer = trial.evidence["scorer"]
    count = min(len(scorer.exemplars), len(scorer.random))
    rows = []
    for name in EXPLANATIONS:
        ids = [("exemplar", one.sample_id) for one in scorer.exemplars[:count]]
        ids += [("random", one.sample_id) for one in scorer.random[:count]]
        ids += [("near_miss", one) for one in trial.near[name]]
        for claim in CLAIMS:
            for stratum, one in ids:
                named = trial.labels[name][one] if claim == "own" else rng.random(TOKENS)
                rows.append(
                    {
                        "layer": 0,
                        "neuron": scorer.neuron,
                        "explainer": name,
                        "simulator": "made-up",
                        "explanation": claim,
                        "sample_id": one,
                        "stratum": stratum,
                        "purpose": "scorer",
                        "visual": [],
                        "text": named.astype(np.float16),
                        "estimator": "",
                        "status": "ok",
                        "reason": "",
                    }
                )
    return rows


@pytest.fixture(scope="module", params=[0.01, 0.001])
def scores(request) -> tuple[float, dict[str, dict[str, np.ndarray]]]:
    """Columns of the scores over all tokens [trials], by explanation, with the frequency."""
    rows: list[dict] = []
    evidence: dict[Purpose, list[Evidence]] = {"explainer": [], "calibration": [], "scorer": []}
    strata, whole = {}, []
    for seed in range(TRIALS):
        trial = drawn_trial(seed, request.param)
        rows += simulated(trial)
        whole.append(trial.whole)
        for purpose, one in trial.evidence.items():
            evidence[purpose].append(one)
        strata |= {(0, seed, name): its for name, its in trial.strata.items()}
    ids = {one for neurons in evidence.values() for neuron in neurons for one in neuron.sample_ids}
    table = score_neurons(
        pa.Table.from_pylist(rows, schema=SIMULATIONS.schema),
        evidence,
        dict.fromkeys(ids, [" a"] * TOKENS),
        {},
        ScoreSettings(resamples=100),
        strata,
    )
    over_all = [row for row in table.to_pylist() if row["tokens"] == "all"]
    columns = ("correlation", "top_random_correlation", "purity", "recall")
    return request.param, {
        name: {
            column: np.array(
                [row[column] for row in over_all if row["explainer"] == name], dtype=float
            )
            for column in columns
        }
        | {"whole": np.array([one[name] for one in whole])}
        for name in EXPLANATIONS
    }


@pytest.mark.parametrize("worse", ["halved", "doubled", "tenfold"])
def test_the_score_falls_if_an_explanation_is_too_narrow_or_too_broad(scores, worse):
    frequency, found = scores
    falls = found[worse]["correlation"] < found["right"]["correlation"]
    assert falls.mean() >= (0.95 if frequency == 0.01 else 0.9)


def test_purity_shows_what_is_too_broad_and_recall_what_is_too_narrow(scores):
    _, found = scores
    for measure in ("purity", "recall"):
        assert (found["right"][measure] > 0.9).mean() >= 0.9
    assert np.median(found["doubled"]["purity"]) == pytest.approx(0.5, abs=0.1)
    assert np.median(found["tenfold"]["purity"]) == pytest.approx(0.1, abs=0.05)
    assert (found["doubled"]["purity"] < found["right"]["purity"]).mean() >= 0.9
    assert (found["tenfold"]["purity"] < found["doubled"]["purity"]).mean() >= 0.9
    assert (found["halved"]["recall"] < found["right"]["recall"]).mean() >= 0.9


def test_the_top_and_random_score_hardly_sees_what_is_too_broad(scores):
    """What the weights are for: without them, twice too broad scores as the right explanation."""
    _, found = scores
    drop = found["right"]["top_random_correlation"] - found["doubled"]["top_random_correlation"]
    weighted = found["right"]["correlation"] - found["doubled"]["correlation"]
    assert np.median(drop) < 0.05 < np.median(weighted)


@pytest.mark.parametrize("explanation", ["right", "doubled", "tenfold"])
def test_the_score_estimates_the_correlation_over_the_whole_dataset(scores, explanation):
    _, found = scores
    ratio = found[explanation]["correlation"] / found[explanation]["whole"]
    assert np.mean(ratio) == pytest.approx(1, abs=0.1)
