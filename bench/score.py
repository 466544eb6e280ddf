"""How long scoring takes, with every control and interval, and in how much memory; and how much of
a server's throughput simulating uses (bench/simulate.py).

    python -m bench.score [--neurons 10000] [--processes 2] [--only scoring|simulating]
                          [--out bench/score.json]

Made-up neurons in parts as the score stage works on them, each process one core: every part is
drawn (not timed) and then scored by `score_neurons`, which is timed. Together with p and q and the
aggregates over all neurons, the slowest process's seconds are the result. Memory is the highest
that each process held, its interpreter and the drawn part included.
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
from neuron_atlas.tasks.artifacts import CLAIMS, SIMULATIONS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence, Purpose
from neuron_atlas.tasks.score.aggregate import aggregate_scores
from neuron_atlas.tasks.score.score import score_neurons
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.significance import judge

SECONDS, GIGABYTES = 60, 3
"""What a run of the default size is held against."""
_PART = 128
_CALIBRATION = 8
_WORDS = 4_000


@dataclass(frozen=True)
class Size:
    """Held-out samples of a neuron, and visual and text tokens of a sample."""

    samples: int
    visual: int
    text: int


@dataclass(frozen=True)
class Part:
    """Everything that scoring some neurons reads."""

    simulations: pa.Table
    evidence: dict[Purpose, list[Evidence]]
    texts: dict[int, list[str]]


@dataclass(frozen=True)
class Share:
    """What one process did."""

    scores: pa.Table
    seconds: float
    max_rss: int


def main() -> None:
    """Measure, and write and print the figures."""
    parser = argparse.ArgumentParser(description="Scoring with controls and intervals.")
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
    # What is not measured now stays as it was.
    found = json.loads(options.out.read_text("utf-8")) if options.out.is_file() else {}
    missed = []
    if options.only != "scoring":
        found["simulating"] = simulate.measure(
            simulate.NEURONS, options.requests_in_flight, simulate.LATENCY_S, options.rounds
        )
        missed += simulate.missed_targets(found["simulating"])
    if options.only != "simulating":
        found["scoring"] = _scoring(options)
        missed += missed_targets(found["scoring"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    sys.exit(1 if missed else 0)


def missed_targets(found: Mapping[str, Any]) -> list[str]:
    """A line for each target that what was found does not reach, of a run of the default size."""
    return [
        f"{found[name]['all']} of at most {found[name]['limit']} ({name})"
        for name in ("seconds", "max_rss_gb")
        if found[name]["all"] > found[name]["limit"]
    ]


def _scoring(options: argparse.Namespace) -> dict[str, Any]:
    size = Size(options.samples, options.visual, options.text)
    settings = ScoreSettings(resamples=options.resamples)
    parts = [
        (first, min(_PART, options.neurons - first)) for first in range(0, options.neurons, _PART)
    ]
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = "1"  # Read by the processes, which are begun afresh.
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        shares = list(
            pool.map(
                score_parts,
                [parts[place :: options.processes] for place in range(options.processes)],
                [size] * options.processes,
                [settings] * options.processes,
            )
        )
    start = time.perf_counter()
    judged = judge(pa.concat_tables([share.scores for share in shares]))
    aggregates = aggregate_scores(judged, settings)
    gathering = time.perf_counter() - start
    rss = [*(share.max_rss for share in shares), _max_rss()]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "neurons": options.neurons,
        "samples": size.samples,
        "tokens": size.visual + size.text,
        "predictions": [*CLAIMS, "blind"],
        "resamples": settings.resamples,
        "processes": options.processes,
        "seconds": {
            "processes": [round(share.seconds, 2) for share in shares],
            "gather": round(gathering, 2),
            "all": round(max(share.seconds for share in shares) + gathering, 2),
            "limit": SECONDS,
        },
        "max_rss_gb": {
            "processes": [round(size / 1e9, 3) for size in rss],
            "all": round(sum(rss) / 1e9, 3),
            "limit": GIGABYTES,
        },
        "rows": {"scores": len(judged), "score_aggregates": len(aggregates)},
    }


def score_parts(parts: list[tuple[int, int]], size: Size, settings: ScoreSettings) -> Share:
    """Draw and score neurons, given as (first, number); only the scoring is timed."""
    seconds = 0.0
    scored = []
    for first, count in parts:
        part = draw_part(first, count, size)
        start = time.perf_counter()
        scored.append(score_neurons(part.simulations, part.evidence, part.texts, {}, settings))
        seconds += time.perf_counter() - start
    return Share(pa.concat_tables(scored), seconds, _max_rss())


def draw_part(first: int, count: int, size: Size) -> Part:
    """Neurons from `first` on, whose own predictions correlate with them and others' do not."""
    rng = np.random.default_rng(first)
    evidence: dict[Purpose, list[Evidence]] = {"scorer": [], "calibration": [], "explainer": []}
    texts: dict[int, list[str]] = {}
    rows: list[dict] = []
    predicted: list[np.ndarray] = []
    tokens = size.visual + size.text
    for neuron in range(first, first + count):
        names = {"layer": neuron % 32, "neuron": neuron}
        for place, (purpose, number) in enumerate(
            (("scorer", size.samples), ("calibration", _CALIBRATION), ("explainer", size.samples))
        ):
            ids = 1_000 * place + np.arange(number)
            noise = rng.standard_normal((number, tokens), dtype=np.float32)
            fires = (rng.random((number, tokens), dtype=np.float32) < 0.02) * np.float32(6)
            real = (noise + fires).astype(np.float16).astype(np.float32)
            seen = tuple(
                ActivationRecord(number, row[: size.visual], row[size.visual :])
                for number, row in zip(ids.tolist(), real, strict=True)
            )
            evidence[purpose].append(  # type: ignore[index]
                Evidence(
                    layer=neuron % 32,
                    neuron=neuron,
                    type="visual",
                    scale=9.0,
                    exemplars=seen[: number // 2],
                    random=seen[number // 2 :],
                )
            )
            for claim in CLAIMS if purpose == "scorer" else CLAIMS[:1]:
                if purpose == "explainer":
                    continue
                chance = rng.standard_normal((number, tokens), dtype=np.float32)
                predicted.append((fires + chance if claim == "own" else chance).astype(np.float16))
                rows += [
                    names
                    | {
                        "claim": claim,
                        "sample_id": sample_id,
                        "purpose": purpose,
                        "draw": "exemplar" if spot < number // 2 else "random",
                    }
                    for spot, sample_id in enumerate(ids.tolist())
                ]
    for place, number in ((0, size.samples), (1, _CALIBRATION), (2, size.samples)):
        for sample_id in range(1_000 * place, 1_000 * place + number):
            words = rng.integers(_WORDS, size=size.text)
            texts[sample_id] = [f" {word}" for word in words.tolist()]
    return Part(_simulations(rows, np.concatenate(predicted), size), evidence, texts)


def _simulations(rows: list[dict], predicted: np.ndarray, size: Size) -> pa.Table:
    same = {
        "explainer": "made-up",
        "simulator": "made-up",
        "claim_layer": -1,
        "claim_neuron": -1,
        "detected": None,
        "estimator": "",
        "status": "ok",
        "reason": "",
    }
    columns = {
        name: pa.array(
            [same.get(name, row.get(name)) for row in rows], SIMULATIONS.schema.field(name).type
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
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
