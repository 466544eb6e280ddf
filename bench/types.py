"""Measure the time and memory of typing by tests, compared with shuffling labels.

    python -m bench.types [--layers 32] [--neurons 11008] [--out bench/types.json]

Writes synthetic histograms of the size of LLaVA-1.5-7B over 23,000 samples. A separate process
reads, tests and writes them layer by layer (the workflow runs layers in parallel). The usual method
shuffles the labels of each neuron's tokens 1,000 times. It gets only the tokens of 50 exemplars, as
in published code, instead of the 15 million tokens of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    NEURON_TESTS,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges
from neuron_atlas.tasks.classify.decide import decide_types
from neuron_atlas.tasks.classify.tested import RateRule

N_VISUAL, N_TEXT = 13_000_000, 2_000_000
SHUFFLES = 1000
EXEMPLAR_VISUAL, EXEMPLAR_TEXT = 50 * 576, 50 * 90


def main() -> None:
    """Measure, print the result and write it as JSON."""
    parser = argparse.ArgumentParser(description="Compare typing by tests with shuffling labels.")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--neurons", type=int, default=11_008)
    parser.add_argument("--shuffled-neurons", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("bench/types.json"))
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(type_neurons(options.work, options.layers)))
        return
    with TemporaryDirectory(dir=options.out.resolve().parent) as folder:
        for layer in range(options.layers):
            histograms = synthetic_histograms(layer, options.neurons)
            write_table(histograms, HISTOGRAMS, Path(folder) / layer_file("histograms", layer))
        size = sum(path.stat().st_size for path in Path(folder).glob("*.parquet"))
        command = [sys.executable, "-m", "bench.types", "--work", folder]
        run = subprocess.run(
            [*command, "--layers", str(options.layers)], stdout=subprocess.PIPE, check=True
        )
        measured = json.loads(run.stdout)
    neurons = options.layers * options.neurons
    per_shuffled = [_seconds_to_shuffle(seed) for seed in range(options.shuffled_neurons)]
    per_neuron = measured["seconds"] / neurons
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "neurons": neurons,
        "tokens": {"visual": N_VISUAL, "text": N_TEXT},
        "histograms_GB": round(size / 1e9, 3),
        **measured,
        "microseconds_per_neuron": round(per_neuron * 1e6, 1),
        "usual_way": {
            "shuffles": SHUFFLES,
            "tokens": {"visual": EXEMPLAR_VISUAL, "text": EXEMPLAR_TEXT},
            "neurons": options.shuffled_neurons,
            "seconds_per_neuron": round(statistics.median(per_shuffled), 4),
        },
        "time_usual_over_tests_per_neuron": round(statistics.median(per_shuffled) / per_neuron),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def type_neurons(folder: Path, layers: int) -> dict[str, object]:
    """Read, test and write all layers in `folder`; return time, peak memory and type counts."""
    rule = RateRule()
    start, processor = time.perf_counter(), time.process_time()
    tested = [folder / "without-q" / layer_file("tested_types", layer) for layer in range(layers)]
    for layer, path in enumerate(tested):
        histograms = read_table(folder / layer_file("histograms", layer), HISTOGRAMS)
        write_table(rule.test(histograms), NEURON_TESTS, path)
    written = [folder / path.name for path in tested]
    decide_types(rule, tested, written)
    seconds = time.perf_counter() - start
    processor_seconds = time.process_time() - processor
    kinds = pa.concat_tables(pq.read_table(path, columns=["type_tested"]) for path in written)
    counts = kinds["type_tested"].value_counts().to_pylist()
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor_seconds, 2),
        "max_resident_GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 3),
        "types": {row["values"]: row["counts"] for row in counts},
    }


def synthetic_histograms(layer: int, neurons: int) -> pa.Table:
    """Return synthetic `histograms` rows of one layer.

    A neuron's activations are exponentially distributed, with a separate scale for each role and
    block. One tenth of the neurons has nearly the same scale for both roles.
    """
    rng = np.random.default_rng(layer)
    scale = rng.lognormal(-1.0, 1.0, (neurons, 1))
    role_spread = np.where(rng.uniform(size=(neurons, 1)) < 0.1, 0.0, 0.7)
    positive = rng.uniform(0.05, 0.6, (neurons, 1))
    columns = {
        "layer": pa.array([layer] * neurons, pa.int16()),
        "neuron": pa.array(range(neurons), pa.int32()),
    }
    for role, tokens in (("visual", N_VISUAL), ("text", N_TEXT)):
        own = scale * np.exp(role_spread * rng.normal(size=(neurons, 1)))
        of_block = own * np.exp(0.05 * rng.normal(size=(neurons, BLOCKS)))
        above = positive[:, :, None] * np.exp(-bin_edges()[1:] / of_block[:, :, None])
        shares = -np.diff(above, prepend=1.0, append=0.0)
        counts = np.rint(shares * (tokens / BLOCKS)).astype(np.int32)
        columns[role] = pa.FixedSizeListArray.from_arrays(pa.array(counts.ravel()), BLOCKS * BINS)
    return pa.table(columns).cast(HISTOGRAMS.schema)


def _seconds_to_shuffle(seed: int) -> float:
    rng = np.random.default_rng(seed)
    high_visual = rng.uniform(size=EXEMPLAR_VISUAL) < 0.05
    high_text = rng.uniform(size=EXEMPLAR_TEXT) < 0.04
    start = time.perf_counter()
    shuffled_p(high_visual, high_text, SHUFFLES, rng)
    return time.perf_counter() - start


def shuffled_p(
    high_visual: np.ndarray, high_text: np.ndarray, shuffles: int, rng: np.random.Generator
) -> float:
    """Return the share of label shuffles with at least the observed difference (the usual test).

    Fast for its kind: it shuffles a byte per token in place.
    """
    n_visual, n_text = len(high_visual), len(high_text)
    observed = abs(high_visual.mean() - high_text.mean())
    tokens = np.concatenate([high_visual, high_text]).view(np.uint8)
    total = int(tokens.sum())
    reached = 0
    for _ in range(shuffles):
        rng.shuffle(tokens)
        visual = int(np.count_nonzero(tokens[:n_visual]))
        reached += abs(visual / n_visual - (total - visual) / n_text) >= observed - 1e-12
    return reached / shuffles


if __name__ == "__main__":
    main()
