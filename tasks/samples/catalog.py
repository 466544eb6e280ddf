"""Look samples up by id: their tokens, image, patch grid and true concepts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from tasks.artifacts import CONCEPT_GRID, CONCEPTS, DESCRIPTIONS, SAMPLES, read_table
from tasks.samples.source import Source


@dataclass(frozen=True)
class Sample:
    """One usable sample as the subject saw it."""

    sample_id: int
    source_id: str
    image: str
    text: str
    tokens: tuple[str, ...]
    """The text cut at its token boundaries: joined they give the text."""
    grid_height: int
    grid_width: int
    view: tuple[float, float, float, float]
    """Left, top, right, bottom (px of the upright original) that the patch grid covers."""
    width: int
    height: int

    @property
    def n_visual(self) -> int:
        """Visual tokens."""
        return self.grid_height * self.grid_width


@dataclass(frozen=True, eq=False)
class TrueConcept:
    """A concept of one sample; mask float32 [24, 24], coverage 0-1 over the whole image.

    Compared by identity, so that what is worked out of its mask can be kept beside it.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    mask: np.ndarray


@dataclass(frozen=True)
class Catalog:
    """Samples by id. Reads only the ids asked for, so it stays small beside a large dataset."""

    samples: dict[int, Sample]
    truths: dict[int, tuple[TrueConcept, ...]] = field(default_factory=dict)
    source: Source | None = None

    def __getitem__(self, sample_id: int) -> Sample:
        return self.samples[sample_id]

    def concepts(self, sample_id: int) -> tuple[TrueConcept, ...]:
        """The true concepts of a sample; empty where the source knows none."""
        return self.truths.get(sample_id, ())

    def open_view(self, sample_id: int) -> Image.Image:
        """The part of the image that the patch grid covers, RGB; what lies outside is black."""
        left, top, right, bottom = (round(edge) for edge in self[sample_id].view)
        return self.open_image(sample_id).crop((left, top, right, bottom))

    def open_image(self, sample_id: int) -> Image.Image:
        """The whole upright image, RGB. Raises BadSample."""
        if self.source is None:
            raise ValueError("this catalog was opened without its source, so it has no images")
        return self.source.open_image(self[sample_id].image).pixels


def open_catalog(
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    concepts: Sequence[Path] = (),
    *,
    sample_ids: Collection[int] | None = None,
    source: Source | None = None,
) -> Catalog:
    """Read the usable samples, all or only `sample_ids`, from their artifacts."""
    described = _only(read_table(descriptions, DESCRIPTIONS), sample_ids)
    listed = _only(read_table(samples, SAMPLES), described["sample_id"].to_pylist())
    images = {
        row["sample_id"]: row
        for row in listed.select(["sample_id", "source_id", "image", "width", "height"]).to_pylist()
    }
    usable = described.filter(
        pc.is_in(described["status"], value_set=pa.array(["ok", "truncated"]))
    )
    by_id = {
        row["sample_id"]: Sample(
            sample_id=row["sample_id"],
            source_id=images[row["sample_id"]]["source_id"],
            image=images[row["sample_id"]]["image"],
            text=row["text"],
            tokens=tuple(row["tokens"]),
            grid_height=row["grid_height"],
            grid_width=row["grid_width"],
            view=tuple(row["view"]),
            width=images[row["sample_id"]]["width"],
            height=images[row["sample_id"]]["height"],
        )
        for row in usable.to_pylist()
    }
    truths = _truths(_only(read_table(concepts, CONCEPTS), by_id))
    return Catalog(by_id, truths, source)


def _truths(concepts: pa.Table) -> dict[int, tuple[TrueConcept, ...]]:
    grid = (-1, CONCEPT_GRID, CONCEPT_GRID)
    masks = concepts["mask"].combine_chunks().flatten().to_numpy().reshape(grid)
    masks = masks.astype(np.float32) / 255
    truths: dict[int, list[TrueConcept]] = {}
    for row, mask in zip(concepts.drop_columns("mask").to_pylist(), masks, strict=True):
        truth = TrueConcept(row["concept"], row["kind"], tuple(row["words"]), mask)
        truths.setdefault(row["sample_id"], []).append(truth)
    return {sample_id: tuple(found) for sample_id, found in truths.items()}


def _only(table: pa.Table, sample_ids: Collection[int] | None) -> pa.Table:
    if sample_ids is None:
        return table
    wanted = pa.array(list(sample_ids), type=pa.int32())
    return table.filter(pc.is_in(table["sample_id"], value_set=wanted))
