"""Samples: list the dataset, open every image once, and record which samples are usable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from neuron_atlas.tasks.artifacts import CONCEPTS, SAMPLES, read_table, write_table
from neuron_atlas.tasks.artifacts.location import present
from neuron_atlas.tasks.samples.scan import (
    bad_share,
    duplicate_positions,
    first_bad,
    list_records,
    scan,
)
from neuron_atlas.tasks.samples.source import Record, Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.progress import progress
from neuron_atlas.workflows.cluster.spread import spread
from neuron_atlas.workflows.run.errors import RunFailed
from neuron_atlas.workflows.run.stage import Context, Stage, Written, count_rows

_VERSION = 2


def check_samples(context: Context) -> None:
    """Raise RunFailed where too many samples are bad, before anything expensive begins."""
    samples = read_table(context.paths("samples", "samples"), SAMPLES)
    share, limit = bad_share(samples), context.settings.data.max_bad_share
    if share > limit:
        bad = "\n  ".join(first_bad(samples))
        raise RunFailed(
            f"{share:.1%} of {len(samples):,} samples cannot be used, and data.max_bad_share is "
            f"{limit:.1%}; mend them or raise it. The first:\n  {bad}"
        )


def _parameters(context: Context) -> Mapping[str, Any]:
    source = context.settings.data.source
    return {
        "source": identity(source),
        "probe": source.probe(),
        "require_text": _require_text(context),
    }


def _require_text(context: Context) -> bool:
    return context.settings.describe.text == "given"


def _run(context: Context, folder: Path) -> Written:
    source = context.settings.data.source
    records = list_records(source)
    duplicates = duplicate_positions(records)
    parts = _parts(len(records))
    # The folder is of this dataset as it is now, so a part is named by its place alone.
    names = [f"{start:08d}-{stop:08d}.parquet" for start, stop in parts]
    scanned = present(folder, [f"samples-{name}" for name in names])
    waiting = [
        (part, name)
        for part, name in zip(parts, names, strict=True)
        if f"samples-{name}" not in scanned
    ]
    done = len(records) - sum(stop - start for (start, stop), _ in waiting)

    def submit(item: tuple[tuple[int, int], str]) -> ray.ObjectRef:
        (start, stop), name = item
        mine = duplicates.intersection(range(start, stop))
        return _scan_part.remote(
            source, records[start:stop], start, mine, _require_text(context), folder, name
        )

    with progress("samples", len(records), "samples", done) as advance:
        for ((start, stop), _), _ in spread(waiting, submit):
            advance(stop - start)
    files = {
        "samples": [f"samples-{name}" for name in names],
        "concepts": [f"concepts-{name}" for name in names],
    }
    samples = read_table([folder / name for name in files["samples"]], SAMPLES)
    return Written(files, count_rows(folder, files), content=_content(samples))


def _parts(samples: int) -> list[tuple[int, int]]:
    """Ranges of samples: about 200 parts, none tiny and none huge."""
    size = min(4096, max(64, -(-samples // 200)))
    return [(start, min(start + size, samples)) for start in range(0, samples, size)]


@task()
def _scan_part(
    source: Source,
    records: Sequence[Record],
    first_id: int,
    duplicates: set[int],
    require_text: bool,
    folder: Path,
    name: str,
) -> None:
    samples, concepts = scan(
        source, records, first_id, require_text=require_text, duplicates=duplicates
    )
    write_table(concepts, CONCEPTS, folder / f"concepts-{name}")
    # Last, because its presence is what marks the part as done.
    write_table(samples, SAMPLES, folder / f"samples-{name}")


def _content(samples: pa.Table) -> str:
    """What the samples are, wherever and whenever their files were read."""
    digest = hashlib.sha256(str(_VERSION).encode())
    decisive = samples.select(["sample_id", "source_id", "image_sha256", "text", "status"])
    for batch in decisive.to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
    return digest.hexdigest()


STAGE = Stage("samples", _VERSION, (), _parameters, _run)
