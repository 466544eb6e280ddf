"""Open every image of a dataset once and record which samples are usable."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import CONCEPTS, SAMPLES
from neuron_atlas.tasks.clean_text import clean_text
from neuron_atlas.tasks.samples.source import SampleError, SampleRecord, Source, SourceError

_MAX_REASON = 300
"""Characters of a reason. Names of files may be as long as an embedded image."""


def scan_samples(
    source: Source,
    records: Sequence[SampleRecord],
    first_id: int,
    *,
    require_text: bool,
    duplicates: Collection[int],
) -> tuple[pa.Table, pa.Table]:
    """Open the images of `records` and check which samples are usable.

    records: consecutive in the dataset. first_id: dataset position of the first record.
    duplicates: dataset positions of records with a repeated id. Returns a `samples` table, one row
    per record in their order, with null width and height (px) if no image was read, and a
    `concepts` table with the ground truth of the usable samples. A bad row or image is a row with
    its status; raises SourceError if the dataset as a whole cannot be read.
    """
    samples: list[dict[str, Any]] = []
    concepts: list[dict[str, Any]] = []
    for sample_id, record in enumerate(records, start=first_id):
        outcome = _open(source, record)
        if outcome["status"] == "ok":
            outcome |= _usability(record, sample_id in duplicates, require_text)
        samples.append(
            {
                "sample_id": sample_id,
                "source_id": record.source_id,
                "images": list(record.images),
                "text": record.text,
                **outcome,
            }
        )
        if outcome["status"] == "ok":
            concepts.extend(_truths(source, sample_id, record))
    return (
        pa.Table.from_pylist(samples, schema=SAMPLES.schema),
        pa.Table.from_pylist(concepts, schema=CONCEPTS.schema),
    )


def list_records(source: Source, limit: int | None = None) -> list[SampleRecord]:
    """Return a dataset's records, or its first `limit`. Raises SourceError, also if it is empty."""
    records = list(islice(source.records(), limit))
    if not records:
        raise SourceError(f"{source.title} has no samples; correct the data settings")
    return records


def duplicate_positions(records: Sequence[SampleRecord]) -> set[int]:
    """Return the positions of records that repeat an earlier record's id."""
    seen: set[str] = set()
    repeated: set[int] = set()
    for position, record in enumerate(records):
        if record.source_id in seen:
            repeated.add(position)
        seen.add(record.source_id)
    return repeated


def bad_share(samples: pa.Table) -> float:
    """Return the share of bad samples among those that were not skipped, 0-1; 0 without any."""
    bad = _bad(samples)
    skipped = bad.num_rows - _not_skipped(bad).num_rows
    read = samples.num_rows - skipped
    return (bad.num_rows - skipped) / read if read else 0.0


def first_bad(samples: pa.Table, n: int = 10) -> list[str]:
    """Return the first `n` unusable samples, each as "source_id: status: reason".

    Skipped samples come last.
    """
    bad = _bad(samples)
    rows = [*_not_skipped(bad).slice(0, n).to_pylist()]
    if len(rows) < n:
        skipped = bad.filter(pc.equal(bad["status"], "skipped"))
        rows += skipped.slice(0, n - len(rows)).to_pylist()
    return [f"{row['source_id']}: {row['status']}: {row['reason']}" for row in rows]


def scan_notes(samples: pa.Table) -> list[str]:
    """Return lines for the user: samples that cannot be used, and samples without an image."""
    bad = _bad(samples)
    lines = []
    if bad.num_rows:
        counts = Counter(bad["status"].to_pylist())
        counted = ", ".join(f"{count:,} {status}" for status, count in counts.most_common())
        lines.append(
            f"{bad.num_rows:,} of {samples.num_rows:,} cannot be used ({counted}), such as "
            f"{first_bad(samples, 1)[0]}"
        )
    is_ok = pc.equal(samples["status"], "ok")
    has_no_image = pc.equal(pc.list_value_length(samples["images"]), 0)
    if text_only := pc.sum(pc.and_(is_ok, has_no_image)).as_py():
        lines.append(f"{text_only:,} of {samples.num_rows:,} have no image; they are text only")
    return lines


def _bad(samples: pa.Table) -> pa.Table:
    return samples.filter(pc.not_equal(samples["status"], "ok"))


def _not_skipped(samples: pa.Table) -> pa.Table:
    return samples.filter(pc.not_equal(samples["status"], "skipped"))


def _open(source: Source, record: SampleRecord) -> dict[str, Any]:
    if record.status != "ok":
        return _unread(record.status, record.reason)
    try:
        opened = [source.open_image(image) for image in record.images]
    except SourceError:
        # The dataset failed, not this image. A worker without the mount must not mark all its
        # samples as bad.
        raise
    except SampleError as bad:
        return _unread(bad.status, bad.reason)
    except Exception as error:  # One image must not stop the scan.
        return _unread("unreadable", f"{type(error).__name__}: {error}")
    return {
        "image_sha256": _digest([image.sha256 for image in opened]),
        "width": opened[0].pixels.width if opened else None,
        "height": opened[0].pixels.height if opened else None,
        "status": "ok",
        "reason": "",
    }


def _digest(hashes: Sequence[str]) -> str:
    if len(hashes) > 1:
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    return "".join(hashes)


def _unread(status: str, reason: str) -> dict[str, Any]:
    reason = " ".join(clean_text(reason).split())
    if len(reason) > _MAX_REASON:
        reason = f"{reason[: _MAX_REASON // 2]} ... {reason[-_MAX_REASON // 2 :]}"
    return {"image_sha256": "", "width": None, "height": None, "status": status, "reason": reason}


def _usability(record: SampleRecord, is_duplicate: bool, require_text: bool) -> dict[str, str]:
    if is_duplicate:
        return {"status": "duplicate_id", "reason": f"an earlier sample has id {record.source_id}"}
    if require_text and not record.text.strip():
        return {"status": "empty_text", "reason": "the dataset has no text for this image"}
    return {}


def _truths(source: Source, sample_id: int, record: SampleRecord) -> list[dict[str, Any]]:
    return [
        {
            "sample_id": sample_id,
            "concept": concept.name,
            "kind": concept.kind,
            "words": list(concept.words),
            "mask": concept.mask.ravel().tolist(),
        }
        # A concept's mask covers one image, so samples with several images have no concepts.
        for concept in (source.concepts(record.image) if len(record.images) == 1 else [])
    ]
