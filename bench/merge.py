"""Compare merging shards with reading and writing the same bytes.

    python -m bench.merge [--shards 8] [--layers 32] [--neurons 11008] [--top-n 50]

Uses synthetic shards of LLaVA-1.5-7B's 352,256 neurons, layer by layer. One process reads all files
of a layer and writes as many bytes as the merged layer has; another process merges the layer. The
peak resident memory of both is reported. All layers use the same synthetic shards.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.synthetic.layer import make_moments
from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    RANDOM_TRACES,
    TRACES,
    TableSpec,
    exemplars_spec,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.capture.merge import merge_layer

TIME_TARGET = 1.5
_LAYER = 0
MEMORY_TARGET_GB = 2.0


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description="Compare merging with reading and writing.")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--neurons", type=int, default=11_008)
    parser.add_argument("--top-n", type=int, default=50)
    parser.add_argument("--trace-tokens", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("bench/merge.json"))
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {"read_and_write": [], "merge": []}
    with (
        tempfile.TemporaryDirectory() as scratch,
        _one_process() as plain,
        _one_process() as merging,
    ):
        shards = [
            _write_shard(Path(scratch) / f"shard-{number}", number, options)
            for number in range(options.shards)
        ]
        for layer in range(options.layers):
            arguments = (shards, options.top_n, Path(scratch) / f"merged-{layer}")
            seconds["read_and_write"].append(plain.submit(_read_and_write, *arguments).result())
            seconds["merge"].append(merging.submit(_merge, *arguments).result())
            shutil.rmtree(arguments[2])
        memory = {
            name: round(process.submit(_peak_gigabytes).result(), 2)
            for name, process in (("read_and_write", plain), ("merge", merging))
        }
    ratio = sum(seconds["merge"]) / sum(seconds["read_and_write"])
    result = {
        "shards": options.shards,
        "neurons": options.layers * options.neurons,
        "top_n": options.top_n,
        "trace_tokens": options.trace_tokens,
        "seconds": {name: round(sum(values), 1) for name, values in seconds.items()},
        "median_seconds_per_layer": {
            name: round(statistics.median(values), 3) for name, values in seconds.items()
        },
        "time_merge_over_read_and_write": round(ratio, 3),
        "target_time": TIME_TARGET,
        "resident_gb": memory,
        "target_resident_gb": MEMORY_TARGET_GB,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def _one_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _specs(top_n: int) -> list[TableSpec]:
    return [exemplars_spec(top_n), TRACES, RANDOM_TRACES, HISTOGRAMS, MOMENTS]


def _read_and_write(shards: Sequence[Path], top_n: int, folder: Path) -> float:
    """Read all files of the layer, and write as many bytes as a merge does; return the seconds."""
    start = time.perf_counter()
    for spec in _specs(top_n):
        for shard in shards:
            table = read_table(shard / layer_file(spec.name, _LAYER), spec)
        if spec is RANDOM_TRACES:  # A merge writes all of these.
            for _ in shards[1:]:
                write_table(table, spec, folder / layer_file(spec.name, _LAYER))
        write_table(table, spec, folder / layer_file(spec.name, _LAYER))
    return time.perf_counter() - start


def _merge(shards: Sequence[Path], top_n: int, folder: Path) -> float:
    start = time.perf_counter()
    merge_layer(shards, _LAYER, top_n, folder)
    return time.perf_counter() - start


def _peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _write_shard(folder: Path, number: int, options: argparse.Namespace) -> Path:
    rng = np.random.default_rng(number)
    neurons, top_n = options.neurons, options.top_n
    ids = np.sort(rng.choice(3000, (neurons, top_n)), axis=1) + 3000 * number
    peaks = -np.sort(-rng.gumbel(size=(neurons, top_n)).astype(np.float32), axis=1)
    columns: dict[str, np.ndarray] = {
        "sample_id": ids,
        "peak": peaks,
        "peak_role": ids % 2,
        "peak_token": ids % 97,
    }
    neuron_columns = {
        "layer": np.full(neurons, _LAYER, np.int16),
        "neuron": np.arange(neurons, dtype=np.int32),
    }
    ranked = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), top_n)
        for name, values in columns.items()
    }
    tables = [
        (exemplars_spec(top_n), pa.table(neuron_columns | ranked)),
        (TRACES, _traces(rng, ids, options.trace_tokens)),
        (RANDOM_TRACES, _traces(rng, ids[:, :4], options.trace_tokens).drop("rank")),
        (HISTOGRAMS, _histograms(rng, neuron_columns)),
        (MOMENTS, make_moments(rng, neuron_columns, len(neuron_columns["neuron"]))),
    ]
    for spec, table in tables:
        path = folder / layer_file(spec.name, _LAYER)
        write_table(table.select(spec.schema.names).cast(spec.schema), spec, path)
    return folder


def _traces(rng: np.random.Generator, ids: np.ndarray, tokens: int) -> pa.Table:
    neurons, rows = len(ids), ids.size
    half = tokens // 2

    def lists() -> pa.ListArray:
        offsets = np.arange(rows + 1, dtype=np.int32) * half
        return pa.ListArray.from_arrays(offsets, rng.normal(size=rows * half).astype(np.float16))

    return pa.table(
        {
            "layer": np.full(rows, _LAYER, np.int16),
            "neuron": np.repeat(np.arange(neurons, dtype=np.int32), ids.shape[1]),
            "rank": np.tile(np.arange(ids.shape[1], dtype=np.int16), neurons),
            "sample_id": ids.ravel(),
            "visual": lists(),
            "text": lists(),
        }
    )


def _histograms(rng: np.random.Generator, neuron_columns: dict[str, np.ndarray]) -> pa.Table:
    neurons = len(neuron_columns["neuron"])
    shape = np.exp(-np.arange(BINS) / 4.0)

    def counts(tokens: int) -> pa.FixedSizeListArray:
        values = rng.poisson(shape * tokens, (neurons, BLOCKS, BINS)).astype(np.int32)
        return pa.FixedSizeListArray.from_arrays(values.ravel(), BLOCKS * BINS)

    return pa.table(neuron_columns | {"visual": counts(20_000), "text": counts(4_000)})


if __name__ == "__main__":
    main()
