"""Open every image of a dataset once and record which samples are usable."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import CONCEPTS, SAMPLES
from neuron_atlas.tasks.samples.source import SampleError, SampleRecord, Source, SourceError


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
    `concepts` table with the ground truth of the usable samples. A bad image is a row with its
    status; raises SourceError if the dataset as a whole cannot be read.
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
        raise SourceError(f"{source} has no samples; correct the data settings")
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
    """Return the share of unusable samples, 0-1; 0 for an empty table."""
    return _bad(samples).num_rows / samples.num_rows if samples.num_rows else 0.0


def first_bad(samples: pa.Table, n: int = 10) -> list[str]:
    """Return the first `n` unusable samples, each as "source_id: status: reason"."""
    rows = _bad(samples).slice(0, n).select(["source_id", "status", "reason"]).to_pylist()
    return [f"{row['source_id']}: {row['status']}: {row['reason']}" for row in rows]


def _bad(samples: pa.Table) -> pa.Table:
    return samples.filter(pc.not_equal(samples["status"], "ok"))


def _open(source: Source, record: SampleRecord) -> dict[str, Any]:
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
