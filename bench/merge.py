"""Compare merging shards with reading and writing the same bytes.

    python -m bench.merge [--shards 8] [--layers 32] [--neurons 11008] [--top-n 50]

Uses synthetic shards of LLaVA-1.5-7B's 352,256 neurons. Some processes merge the layers, each one
layer at a time, as capture does; before, as many processes read all files of a layer and write as
many bytes as the merged layer has. All layers use the same synthetic shards.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
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
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench/merge.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        shards = [
            _write_shard(Path(scratch) / f"shard-{number}", number, options)
            for number in range(options.shards)
        ]
        shard_bytes = sum(path.stat().st_size for shard in shards for path in shard.iterdir())
        plain, merge = (
            _measure(work, shards, Path(scratch) / work.__name__, options)
            for work in (_read_and_write, _merge)
        )
    result = {
        "shards": options.shards,
        "neurons": options.layers * options.neurons,
        "top_n": options.top_n,
        "processes": options.processes,
        "shard_gb": round(options.layers * shard_bytes / len(shards) / 1e9, 2),
        "seconds": {"read_and_write": plain.seconds, "merge": merge.seconds},
        "target_seconds": SECONDS_TARGET,
        "cpu_seconds": {"read_and_write": plain.cpu_seconds, "merge": merge.cpu_seconds},
        "resident_gb_per_process": {"read_and_write": plain.gb, "merge": merge.gb},
        "target_resident_gb": MEMORY_TARGET_GB,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


@dataclass(frozen=True)
class _Measured:
    """seconds, cpu_seconds: of all layers. gb: largest peak of resident memory of a process."""

    seconds: float
    cpu_seconds: float
    gb: float


def _measure(
    work: Callable[[Sequence[Path], int, Path], None],
    shards: Sequence[Path],
    folder: Path,
    options: argparse.Namespace,
) -> _Measured:
    """Do `work` for every layer, in processes that each take the next layer."""
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(_nothing, range(options.processes)))  # Imports are not measured.
        start = time.perf_counter()
        tasks = [
            pool.submit(_timed, work, shards, options.top_n, folder / str(layer))
            for layer in range(options.layers)
        ]
        done = [task.result() for task in tasks]
        seconds = time.perf_counter() - start
    return _Measured(
        round(seconds, 1), round(sum(cpu for cpu, _ in done), 1), max(gb for _, gb in done)
    )


def _nothing(number: int) -> None:
    time.sleep(0.5)  # So that every process gets one.


def _timed(
    work: Callable[[Sequence[Path], int, Path], None],
    shards: Sequence[Path],
    top_n: int,
    folder: Path,
) -> tuple[float, float]:
    """Return the CPU seconds of `work`, and the process's peak memory in GB so far."""
    start = time.process_time()
    work(shards, top_n, folder)
    cpu = time.process_time() - start
    shutil.rmtree(folder)
    return cpu, round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def _specs(top_n: int) -> list[TableSpec]:
    return [exemplars_spec(top_n), HISTOGRAMS, MOMENTS]


def _read_and_write(shards: Sequence[Path], top_n: int, folder: Path) -> None:
    """Read all files of the layer, and write as many bytes as a merge does."""
    for spec in _specs(top_n):
        for shard in shards:
            table = read_table(shard / layer_file(in_shard(spec), _LAYER), spec)
        write_table(table, spec, folder / layer_file(spec.name, _LAYER))


def _merge(shards: Sequence[Path], top_n: int, folder: Path) -> None:
    merge_layer(shards, _LAYER, top_n, folder)


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
