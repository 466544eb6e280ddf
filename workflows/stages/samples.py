"""Samples: list the dataset, open every image once, and record which samples can be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import CONCEPTS, SAMPLES, read_table, write_table
from neuron_atlas.tasks.samples.scan import (
    bad_share,
    duplicate_positions,
    first_bad,
    list_records,
    scan_notes,
    scan_samples,
)
from neuron_atlas.tasks.samples.source import SampleRecord, Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.folder import check_subject_folder
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import RunError
from neuron_atlas.workflows.run.held_out import held_out_lines
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Worker

_VERSION = 4
_CONTENT_VERSION = 3
"""Raised when the same samples are to be read anew by later stages."""


def _check(context: Context) -> None:
    """Raise RunError if too many samples are bad, before anything expensive starts."""
    samples = read_table(context.paths("samples", "samples"), SAMPLES)
    for line in scan_notes(samples):
        print_line(f"samples    {line}")
    share, limit = bad_share(samples), context.settings.data.max_bad_share
    if share > limit:
        bad = "\n  ".join(first_bad(samples))
        raise RunError(
            f"{share:.1%} of {len(samples):,} samples cannot be used, and data.max_bad_share is "
            f"{limit:.1%}; fix them or raise data.max_bad_share. The first:\n  {bad}"
        )
    if not pc.any(pc.equal(samples["status"], "ok")).as_py():
        raise RunError(
            f"none of {len(samples):,} samples can be used, such as {first_bad(samples, 1)[0]}; "
            "correct the data settings"
        )
    usable = samples.filter(pc.equal(samples["status"], "ok"))["sample_id"].to_pylist()
    for line in held_out_lines(context, usable):
        print_line(f"{'samples':<10} {line}")


def _prepare(context: Context) -> None:
    # A wrong model or SAE folder must show up before all images are opened.
    check_subject_folder(context.settings.subject)
    context.settings.capture.chosen_layers()


def _parameters(context: Context) -> Mapping[str, Any]:
    source = context.settings.data.source
    return {
        "source": identity(source),
        "probe": source.probe(),
        "require_text": _require_text(context),
    }


def _require_text(context: Context) -> bool:
    return context.settings.describe.text_source == "given"


def _items(context: Context, folder: Path) -> list[Item]:
    source = context.settings.data.source
    records = list_records(source)
    for line in source.notes():
        print_line(f"samples    {line}")
    duplicates = duplicate_positions(records)
    return [
        Item(
            # The fingerprint covers the dataset, so positions are enough to name a part.
            key=f"{start:08d}-{stop:08d}",
            size=stop - start,
            files=tuple(
                f"{artifact}-{start:08d}-{stop:08d}.parquet" for artifact in ("samples", "concepts")
            ),
            inputs=(
                source,
                records[start:stop],
                start,
                duplicates.intersection(range(start, stop)),
                _require_text(context),
            ),
        )
        for start, stop in _parts(len(records))
    ]


def _parts(samples: int) -> list[tuple[int, int]]:
    """Return ranges of samples: about 200 parts of 64 to 4096 samples each."""
    size = min(4096, max(64, -(-samples // 200)))
    return [(start, min(start + size, samples)) for start in range(0, samples, size)]


def _scan(
    worker: Worker,
    source: Source,
    records: Sequence[SampleRecord],
    first_id: int,
    duplicates: set[int],
    require_text: bool,
) -> None:
    samples, concepts = scan_samples(
        source, records, first_id, require_text=require_text, duplicates=duplicates
    )
    for table, spec, path in zip(
        (samples, concepts), (SAMPLES, CONCEPTS), worker.paths, strict=True
    ):
        write_table(table, spec, path)


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    samples = read_table([folder / name for name in files["samples"]], SAMPLES)
    return StageOutput(files, content=_content(samples))


def _content(samples: pa.Table) -> str:
    """Return a hash of the samples that does not depend on the path or time of reading."""
    digest = hashlib.sha256(str(_CONTENT_VERSION).encode())
    decisive = samples.select(["sample_id", "source_id", "image_sha256", "text", "status"])
    for batch in decisive.to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pydict(), sort_keys=True).encode())
    return digest.hexdigest()


STAGE = Stage(
    "samples",
    _VERSION,
    (),
    _parameters,
    (Step("samples", "samples", _items, _scan),),
    _finish,
    prepare=_prepare,
    check=_check,
)
