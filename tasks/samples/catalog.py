"""Look samples up by id: their tokens, image, regions and true concepts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from neuron_atlas.tasks.artifacts import (
    CONCEPT_GRID,
    CONCEPTS,
    DESCRIPTIONS,
    SAMPLES,
    USABLE,
    read_table,
)
from neuron_atlas.tasks.artifacts.regions import Region, View, count_tokens, read_regions, view_of
from neuron_atlas.tasks.samples.source import Source


@dataclass(frozen=True)
class Sample:
    """One usable sample as the subject saw it."""

    sample_id: int
    source_id: str
    images: tuple[str, ...]
    text: str
    tokens: tuple[str, ...]
    """The text cut at its token boundaries: joined they give the text."""
    regions: tuple[Region, ...]
    width: int
    height: int
    """Of the first image, px; 0 without one."""

    @property
    def n_visual(self) -> int:
        """Visual tokens."""
        return count_tokens(self.regions)

    @property
    def view(self) -> View:
        """How `Catalog.open_view` lays out what the subject saw."""
        return view_of(self.regions)


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
    """Samples by id."""

    samples: dict[int, Sample]
    truths: dict[int, tuple[TrueConcept, ...]] = field(default_factory=dict)
    source: Source | None = None

    def __getitem__(self, sample_id: int) -> Sample:
        return self.samples[sample_id]

    def concepts(self, sample_id: int) -> tuple[TrueConcept, ...]:
        """The true concepts of a sample; empty where the source knows none."""
        return self.truths.get(sample_id, ())

    def open_view(self, sample_id: int) -> Image.Image:
        """What the subject saw of the sample, RGB; what lies beyond an image is black."""
        view = self[sample_id].view
        images = self.open_images(sample_id)
        picture = Image.new("RGB", (view.width, view.height))
        for image, box, left in view.panels:
            picture.paste(images[image].crop(box), (left, 0))
        return picture

    def open_images(self, sample_id: int) -> list[Image.Image]:
        """The whole upright images, RGB. Raises BadSample."""
        return [self.open_image(image) for image in self[sample_id].images]

    def open_image(self, reference: str) -> Image.Image:
        """One of a sample's `images`, whole and upright, RGB. Raises BadSample."""
        if self.source is None:
            raise ValueError("this catalog was opened without its source, so it has no images")
        return self.source.open_image(reference).pixels


def open_catalog(
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    concepts: Sequence[Path] = (),
    *,
    sample_ids: Collection[int] | None = None,
    source: Source | None = None,
) -> Catalog:
    """Read the usable samples from their artifacts: all, or no more than `sample_ids`."""
    described = read_table(descriptions, DESCRIPTIONS, sample_ids=sample_ids)
    listed = read_table(samples, SAMPLES, sample_ids=described["sample_id"].to_pylist())
    images = {
        row["sample_id"]: row
        for row in listed.select(
            ["sample_id", "source_id", "images", "width", "height"]
        ).to_pylist()
    }
    usable = described.filter(pc.is_in(described["status"], value_set=pa.array(USABLE)))
    by_id = {
        row["sample_id"]: Sample(
            sample_id=row["sample_id"],
            source_id=images[row["sample_id"]]["source_id"],
            images=tuple(images[row["sample_id"]]["images"]),
            text=row["text"],
            tokens=tuple(row["tokens"]),
            regions=read_regions(row["regions"]),
            width=images[row["sample_id"]]["width"] or 0,
            height=images[row["sample_id"]]["height"] or 0,
        )
        for row in usable.to_pylist()
    }
    truths = _truths(read_table(concepts, CONCEPTS, sample_ids=by_id))
    return Catalog(by_id, truths, source)


def open_layouts(descriptions: Sequence[Path], sample_ids: Collection[int]) -> Catalog:
    """Read no more of some samples than their regions: where each visual token looks.

    The samples have no text, image or source; those without visual tokens are left out.
    """
    columns = ["sample_id", "regions"]
    rows = read_table(descriptions, DESCRIPTIONS, columns, sample_ids=sample_ids).to_pylist()
    return Catalog(
        {
            row["sample_id"]: Sample(
                row["sample_id"], "", (), "", (), read_regions(row["regions"]), 0, 0
            )
            for row in rows
            if row["regions"]
        }
    )


def _truths(concepts: pa.Table) -> dict[int, tuple[TrueConcept, ...]]:
    grid = (-1, CONCEPT_GRID, CONCEPT_GRID)
    masks = concepts["mask"].combine_chunks().flatten().to_numpy().reshape(grid)
    masks = masks.astype(np.float32) / 255
    truths: dict[int, list[TrueConcept]] = {}
    for row, mask in zip(concepts.drop_columns("mask").to_pylist(), masks, strict=True):
        truth = TrueConcept(row["concept"], row["kind"], tuple(row["words"]), mask)
        truths.setdefault(row["sample_id"], []).append(truth)
    return {sample_id: tuple(found) for sample_id, found in truths.items()}
