"""Compare replaying evidence with the bare forward passes, and formats of its rows.

    python -m bench.evidence [--neurons 1280] [--samples 1000] [--rounds 3]

Replays made-up evidence of the bundled subject: 50 exemplars and 32 random samples per neuron. Both
sides open the images and encode the samples; the replay also writes its rows. Then writes and reads
rows of 730 tokens in each format.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from neuron_atlas.tasks.artifacts import CHOSEN, EVIDENCE, write_table
from neuron_atlas.tasks.artifacts.arrow_files import BATCH_ROWS
from neuron_atlas.tasks.evidence.replay import replay
from neuron_atlas.tasks.samples.catalog import Catalog, open_catalog
from neuron_atlas.tasks.samples.scan import list_records, scan_samples
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.describe import describe_part
from neuron_atlas.tasks.subject.encoded import encoded_samples
from neuron_atlas.tasks.subject.hook_points import decoder_layers, neurons_per_layer
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings

TARGET = 1.3
EXEMPLARS, RANDOM = 50, 32
_SUBJECT = Path(__file__).parents[1] / "infra" / "subject" / "llava-scenes"
_BATCH = 16
_ROWS, _VISUAL, _TEXT = 8192, 576, 154


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description="Compare replaying with bare forward passes.")
    parser.add_argument("--neurons", type=int, default=1280)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/evidence.json"))
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        result = {
            "neurons": options.neurons,
            "samples": options.samples,
            **measure_replay(Path(folder), options.neurons, options.samples, options.rounds),
            "target_replay_over_forward": TARGET,
            "formats": dict(_formats(Path(folder), options.rounds)),
        }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measure_replay(folder: Path, neurons: int, samples: int, rounds: int) -> dict[str, float]:
    """Return the seconds of forward passes and of replays, in turn, and the replay's bytes."""
    subject = load_subject(SubjectSettings(model=str(_SUBJECT)), threads=1)
    catalog = _described(subject, Scenes(count=samples), folder)
    chosen = _chosen(subject, catalog, neurons)
    path = folder / "evidence.arrow"

    def forward() -> None:
        encoded = encoded_samples(subject, sorted(catalog.samples), catalog, 0, 0)
        with torch.inference_mode():
            for batch in batches(encoded, _BATCH):
                forward_body(subject, batch.inputs)

    def replayed() -> None:
        write_table(replay(subject, chosen, catalog, "gate", _BATCH, 0), EVIDENCE, path)

    pairs = [(_seconds(forward), _seconds(replayed)) for _ in range(rounds + 1)][1:]
    return {
        "rows": len(chosen),
        "bytes": path.stat().st_size,
        "forward_s": round(statistics.median(pair[0] for pair in pairs), 2),
        "replay_s": round(statistics.median(pair[1] for pair in pairs), 2),
        "replay_over_forward": round(statistics.median(b / a for a, b in pairs), 3),
    }


def _described(subject: Subject, source: Scenes, folder: Path) -> Catalog:
    samples, _ = scan_samples(source, list_records(source), 0, require_text=False, duplicates=set())
    paths = [folder / "samples.parquet", folder / "descriptions.parquet"]
    pq.write_table(samples, paths[0])
    describe_part(subject, paths[0], source, DescribeSettings(text_source="given"), paths[1])
    return open_catalog([paths[0]], [paths[1]], source=source)


def _chosen(subject: Subject, catalog: Catalog, neurons: int) -> pa.Table:
    rng = np.random.default_rng(0)
    layers, width = len(decoder_layers(subject)), neurons_per_layer(subject)
    ids = np.array(sorted(catalog.samples), np.int32)
    per_neuron = min(EXEMPLARS + RANDOM, len(ids))
    units = rng.choice(layers * width, neurons, replace=False)
    rows = neurons * per_neuron
    return pa.table(
        {
            "layer": np.repeat(units // width, per_neuron),
            "neuron": np.repeat(units % width, per_neuron),
            "sample_id": np.concatenate([rng.permutation(ids)[:per_neuron] for _ in units]),
            "rank": np.tile(np.arange(per_neuron), neurons),
            "purpose": ["scorer"] * rows,
            "stratum": ["exemplar"] * rows,
            "weight": np.ones(rows),
        }
    ).cast(CHOSEN.schema)


def _formats(folder: Path, rounds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield MB written and read per second, and size over raw size, of each format."""
    table = _rows()
    raw = _ROWS * (_VISUAL + _TEXT) * 2
    for compression in (None, "lz4", "zstd"):
        path = folder / f"{compression}.arrow"
        options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)

        def write(path: Path = path, options: pa.ipc.IpcWriteOptions = options) -> None:
            with pa.ipc.new_file(str(path), table.schema, options=options) as writer:
                writer.write_table(table, max_chunksize=BATCH_ROWS)

        def read(path: Path = path) -> None:
            with pa.memory_map(str(path)) as source:
                pa.ipc.open_file(source).read_all()

        yield f"arrow, {compression}", _rates(write, read, path, raw, rounds)
    path = folder / "rows.parquet"
    yield (
        "parquet, zstd",
        _rates(
            lambda: pq.write_table(table, path, compression="zstd"),
            lambda: pq.read_table(path, use_threads=False),
            path,
            raw,
            rounds,
        ),
    )


def _rates(
    write: Callable[[], object], read: Callable[[], object], path: Path, raw: int, rounds: int
) -> dict[str, float]:
    seconds = [(_seconds(write), _seconds(read)) for _ in range(rounds)]
    return {
        "written_mb_per_s": round(raw / 1e6 / min(pair[0] for pair in seconds)),
        "read_mb_per_s": round(raw / 1e6 / min(pair[1] for pair in seconds)),
        "size": round(path.stat().st_size / raw, 3),
    }


def _rows() -> pa.Table:
    """Return rows whose activations are those of SiLU over normal numbers."""
    normal = np.random.default_rng(0).standard_normal((_ROWS, _VISUAL + _TEXT)).astype(np.float32)
    values = (normal / (1 + np.exp(-normal))).astype(np.float16)
    columns: dict[str, object] = {"neuron": np.arange(_ROWS, dtype=np.int32) // 82}
    for name, part in (("visual", values[:, :_VISUAL]), ("text", values[:, _VISUAL:])):
        offsets = pa.array(np.arange(_ROWS + 1) * part.shape[1])
        columns[name] = pa.LargeListArray.from_arrays(offsets, pa.array(part.ravel()))
    return pa.table(columns)


def _seconds(method: Callable[[], object]) -> float:
    begun = time.perf_counter()
    method()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
