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
    TableSpec,
    exemplars_spec,
    in_shard,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.capture.merge import merge_layer

SECONDS_TARGET = 30.0
MEMORY_TARGET_GB = 2.0
_LAYER = 0


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description="Compare merging with reading and writing.")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--neurons", type=int, default=11_008)
    parser.add_argument("--top-n", type=int, default=50)
    parser.add_argument("--top-activations", type=int, default=8)
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
        shard_bytes = sum(path.stat().st_size for shard in shards for path in shard.iterdir())
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
        "seconds": {name: round(sum(values), 1) for name, values in seconds.items()},
        "median_seconds_per_layer": {
            name: round(statistics.median(values), 3) for name, values in seconds.items()
        },
        "time_merge_over_read_and_write": round(ratio, 3),
        "target_seconds": SECONDS_TARGET,
        "shard_gb": round(options.layers * shard_bytes / len(shards) / 1e9, 2),
        "resident_gb": memory,
        "target_resident_gb": MEMORY_TARGET_GB,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def _one_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _specs(top_n: int) -> list[TableSpec]:
    return [exemplars_spec(top_n), HISTOGRAMS, MOMENTS]


def _read_and_write(shards: Sequence[Path], top_n: int, folder: Path) -> float:
    """Read all files of the layer, and write as many bytes as a merge does; return the seconds."""
    start = time.perf_counter()
    for spec in _specs(top_n):
        for shard in shards:
            table = read_table(shard / layer_file(in_shard(spec), _LAYER), spec)
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
    columns |= {
        "text_peak_token": ids % 89,
        "visual_active": ids % 61,
        "text_active": ids % 59,
        "visual_sum": 3 * peaks,
        "visual_sum_sq": peaks**2,
    }
    ranked = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), top_n)
        for name, values in columns.items()
    } | {name: _top(rng, peaks, options.top_activations) for name in ("visual_top", "text_top")}
    tables = [
        (exemplars_spec(top_n), pa.table(neuron_columns | ranked)),
        (HISTOGRAMS, _histograms(rng, neuron_columns)),
        (MOMENTS, make_moments(rng, neuron_columns, len(neuron_columns["neuron"]))),
    ]
    for spec, table in tables:
        written = in_shard(spec)
        table = table.select(spec.schema.names).cast(spec.schema)
        write_table(table, written, folder / layer_file(written, _LAYER))
    return folder


def _top(rng: np.random.Generator, peaks: np.ndarray, count: int) -> pa.ListArray:
    """Return the highest activations of every slot, as a subject in float16 gives them."""
    shares = -np.sort(-rng.random((*peaks.shape, count)), axis=2)
    top = (shares * peaks[:, :, None]).astype(np.float16).astype(np.float32)
    offsets = np.arange(len(peaks) + 1, dtype=np.int32) * (peaks.shape[1] * count)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(top.ravel()))


def _histograms(rng: np.random.Generator, neuron_columns: dict[str, np.ndarray]) -> pa.Table:
    neurons = len(neuron_columns["neuron"])
    shape = np.exp(-np.arange(BINS) / 4.0)

    def counts(tokens: int) -> pa.FixedSizeListArray:
        values = rng.poisson(shape * tokens, (neurons, BLOCKS, BINS)).astype(np.int32)
        return pa.FixedSizeListArray.from_arrays(values.ravel(), BLOCKS * BINS)

    return pa.table(neuron_columns | {"visual": counts(20_000), "text": counts(4_000)})


if __name__ == "__main__":
    main()
