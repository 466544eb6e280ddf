"""Measure the time and memory of scoring, with all controls and intervals, and the share of a
server's throughput that the simulate stage uses (bench/simulate.py).

    python -m bench.score [--neurons 10000] [--processes 2] [--only scoring|simulating]
                          [--out bench/score.json]

Uses synthetic neurons in the parts of the score stage, with one core per process. Each part is
drawn (not timed) and then scored by `score_neurons` (timed). The result is the time of the slowest
process plus the time for p, q and the aggregates over all neurons. Memory is the peak of each
process, including its interpreter and the drawn part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench import simulate
from neuron_atlas.tasks.artifacts import CLAIMS, LEVELS, SIMULATIONS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence, Purpose
from neuron_atlas.tasks.evidence.strata import Strata
from neuron_atlas.tasks.score.aggregate import aggregate_scores
from neuron_atlas.tasks.score.score import score_neurons
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.significance import add_significance

SECONDS, GIGABYTES = 60, 3
"""Targets for a run of the default size."""
_PART = 128
_CALIBRATION = 8
_WORDS = 4_000
_STRATA = Strata((50, 430, 22_520), 480, frozenset(range(4)))
"""Of every neuron: its explanation predicts 480 of 23,000 samples."""


@dataclass(frozen=True)
class Size:
    """Held-out exemplars and random samples per neuron, visual and text tokens per sample, and near
    misses per neuron."""

    samples: int
    visual: int
    text: int
    near_misses: int = 8


@dataclass(frozen=True)
class Part:
    """Input of the scoring of some neurons."""

    simulations: pa.Table
    evidence: dict[Purpose, list[Evidence]]
    texts: dict[int, list[str]]
    strata: dict[tuple[int, int, str], Strata]


@dataclass(frozen=True)
class ProcessResult:
    """Scores, time (s) and peak memory (bytes) of one process."""

    scores: pa.Table
    seconds: float
    max_rss: int


def main() -> None:
    """Measure, print the result and write it as JSON."""
    parser = argparse.ArgumentParser(description="Measure scoring with controls and intervals.")
    parser.add_argument("--neurons", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--visual", type=int, default=576)
    parser.add_argument("--text", type=int, default=124)
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench/score.json"))
    parser.add_argument("--only", choices=("scoring", "simulating"))
    parser.add_argument("--requests-in-flight", type=int, default=simulate.IN_FLIGHT)
    parser.add_argument("--rounds", type=int, default=simulate.ROUNDS)
    options = parser.parse_args()
    # Keep earlier results of the part that is not measured now.
    report = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    missed = []
    if options.only != "scoring":
        report["simulating"] = simulate.measure_throughput(
            simulate.NEURONS, options.requests_in_flight, simulate.LATENCY_S, options.rounds
        )
        missed += simulate.missed_targets(report["simulating"])
    if options.only != "simulating":
        report["scoring"] = _scoring(options)
        missed += missed_targets(report["scoring"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    sys.exit(1 if missed else 0)


def missed_targets(report: Mapping[str, Any]) -> list[str]:
    """Return one line for each target that the result misses; for a run of the default size."""
    return [
        f"{name}: {report[name]['all']} exceeds the limit of {report[name]['limit']}"
        for name in ("seconds", "max_rss_gb")
        if report[name]["all"] > report[name]["limit"]
    ]


def _scoring(options: argparse.Namespace) -> dict[str, Any]:
    size = Size(options.samples, options.visual, options.text)
    settings = ScoreSettings(resamples=options.resamples)
    parts = [
        (first, min(_PART, options.neurons - first)) for first in range(0, options.neurons, _PART)
    ]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = "1"  # Read by the spawned processes.
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        results = list(
            pool.map(
                score_parts,
                [parts[start :: options.processes] for start in range(options.processes)],
                [size] * options.processes,
                [settings] * options.processes,
            )
        )
    start = time.perf_counter()
    scores = add_significance(pa.concat_tables([result.scores for result in results]))
    aggregates = aggregate_scores(scores, settings)
    gathering = time.perf_counter() - start
    rss = [*(result.max_rss for result in results), _max_rss()]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "neurons": options.neurons,
        "samples": size.samples,
        "near_misses": size.near_misses,
        "tokens": size.visual + size.text,
        "predictions": [*CLAIMS, "blind", *LEVELS],
        "resamples": settings.resamples,
        "processes": options.processes,
        "seconds": {
            "processes": [round(result.seconds, 2) for result in results],
            "gather": round(gathering, 2),
            "all": round(max(result.seconds for result in results) + gathering, 2),
            "limit": SECONDS,
        },
        "max_rss_gb": {
            "processes": [round(size / 1e9, 3) for size in rss],
            "all": round(sum(rss) / 1e9, 3),
            "limit": GIGABYTES,
        },
        "rows": {"scores": len(scores), "score_aggregates": len(aggregates)},
    }


def score_parts(parts: list[tuple[int, int]], size: Size, settings: ScoreSettings) -> ProcessResult:
    """Draw and score parts of neurons, given as (first, count); only the scoring is timed."""
    seconds = 0.0
    scored = []
    for first, count in parts:
        part = draw_part(first, count, size)
        start = time.perf_counter()
        scored.append(
            score_neurons(part.simulations, part.evidence, part.texts, {}, settings, part.strata)
        )
        seconds += time.perf_counter() - start
    return ProcessResult(pa.concat_tables(scored), seconds, _max_rss())


def draw_part(first: int, count: int, size: Size) -> Part:
    """Draw `count` neurons from `first` on. Their own predictions correlate with their activations;
    control predictions do not."""
    rng = np.random.default_rng(first)
    evidence: dict[Purpose, list[Evidence]] = {"scorer": [], "calibration": [], "explainer": []}
    texts: dict[int, list[str]] = {}
    rows: list[dict] = []
    predicted: list[np.ndarray] = []
    tokens = size.visual + size.text
    for neuron in range(first, first + count):
        key = {"layer": neuron % 32, "neuron": neuron}
        for block, (purpose, paired, near_misses) in enumerate(
            (
                ("scorer", size.samples, size.near_misses),
                ("calibration", _CALIBRATION, 0),
                ("explainer", size.samples, 0),
            )
        ):
            number = paired + near_misses
            strata = ["exemplar"] * (paired // 2) + ["random"] * (paired - paired // 2)
            strata += ["near_miss"] * near_misses
            ids = 1_000 * block + np.arange(number)
            noise = rng.standard_normal((number, tokens), dtype=np.float32)
            fires = (rng.random((number, tokens), dtype=np.float32) < 0.02) * np.float32(6)
            real = (noise + fires).astype(np.float16).astype(np.float32)
            records = tuple(
                ActivationRecord(sample_id, row[: size.visual], row[size.visual :])
                for sample_id, row in zip(ids.tolist(), real, strict=True)
            )
            evidence[purpose].append(  # type: ignore[index]
                Evidence(
                    layer=neuron % 32,
                    neuron=neuron,
                    type="visual",
                    scale=9.0,
                    exemplars=records[: paired // 2],
                    random=records[paired // 2 : paired],
                    near_misses=records[paired:],
                )
            )
            for claim in (*CLAIMS, *LEVELS) if purpose == "scorer" else CLAIMS[:1]:
                if purpose == "explainer":
                    continue
                chance = rng.standard_normal((number, tokens), dtype=np.float32)
                predicted.append((fires + chance if claim == "own" else chance).astype(np.float16))
                rows += [
                    key
                    | {
                        "explanation": claim,
                        "sample_id": sample_id,
                        "purpose": purpose,
                        "stratum": stratum,
                    }
                    for stratum, sample_id in zip(strata, ids.tolist(), strict=True)
                ]
    held_out = size.samples + size.near_misses
    for block, number in ((0, held_out), (1, _CALIBRATION), (2, size.samples)):
        for sample_id in range(1_000 * block, 1_000 * block + number):
            words = rng.integers(_WORDS, size=size.text)
            texts[sample_id] = [f" {word}" for word in words.tolist()]
    simulations = _simulations(rows, np.concatenate(predicted), size)
    keys = [(neuron % 32, neuron, "made-up") for neuron in range(first, first + count)]
    return Part(simulations, evidence, texts, dict.fromkeys(keys, _STRATA))


def _simulations(rows: list[dict], predicted: np.ndarray, size: Size) -> pa.Table:
    constants = {
        "explainer": "made-up",
        "simulator": "made-up",
        "explanation_layer": -1,
        "explanation_neuron": -1,
        "sample_prediction": None,
        "estimator": "",
        "omitted": "",
        "status": "ok",
        "reason": "",
    }
    columns = {
        name: pa.array(
            [constants.get(name, row.get(name)) for row in rows],
            SIMULATIONS.schema.field(name).type,
        )
        for name in SIMULATIONS.schema.names
        if name not in ("visual", "text")
    }
    for name, values in (
        ("visual", predicted[:, : size.visual]),
        ("text", predicted[:, size.visual :]),
    ):
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        columns[name] = pa.ListArray.from_arrays(offsets, values.ravel())
    return pa.table({name: columns[name] for name in SIMULATIONS.schema.names}).cast(
        SIMULATIONS.schema
    )


def _max_rss() -> int:
    """Return the peak memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
