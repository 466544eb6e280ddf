"""Look up samples by id: their tokens, images, regions, true concepts and image clusters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

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
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles, read_image_clusters
from neuron_atlas.tasks.samples.source import Source


@dataclass(frozen=True)
class Sample:
    """One usable sample, as the subject saw it."""

    sample_id: int
    source_id: str
    images: tuple[str, ...]
    text: str
    tokens: tuple[str, ...]
    """The text split at its token boundaries; joined, the pieces give the text."""
    regions: tuple[Region, ...]
    width: int
    height: int
    """Width and height of the first image, px; 0 without an image."""

    @property
    def n_visual(self) -> int:
        """Number of visual tokens."""
        return count_tokens(self.regions)

    @property
    def view(self) -> View:
        """Layout of the picture that `Catalog.open_view` returns."""
        return view_of(self.regions)


@dataclass(frozen=True, eq=False)
class TrueConcept:
    """Ground-truth concept of one sample; mask: float32 [24, 24], coverage 0-1 of the whole image.

    Compared by identity, so values derived from its mask can be cached by concept.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    mask: np.ndarray


class DecodedImages(Protocol):
    """Images of a dataset that are decoded once and then shared."""

    def open(self, reference: str, decode: Callable[[], Image.Image]) -> Image.Image:
        """Return the image, from `decode` if it was not decoded before."""


@dataclass(frozen=True)
class Catalog:
    """Usable samples and their ground-truth concepts, by sample_id."""

    samples: dict[int, Sample]
    truths: dict[int, tuple[TrueConcept, ...]] = field(default_factory=dict)
    source: Source | None = None
    images: DecodedImages | None = None
    """Where decoded images are shared; None to decode them each time."""
    clusters: Mapping[int, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """Patches of each image cluster, bool [n_visual], by sample_id and the cluster's name."""

    def __getitem__(self, sample_id: int) -> Sample:
        return self.samples[sample_id]

    def concepts(self, sample_id: int) -> tuple[TrueConcept, ...]:
        """Return the ground-truth concepts of a sample; empty if the source has none."""
        return self.truths.get(sample_id, ())

    def image_clusters(self, sample_id: int) -> Mapping[str, np.ndarray]:
        """Return the patches of each image cluster in a sample, bool [n_visual] by its name; empty
        in a run without clusters."""
        return self.clusters.get(sample_id, {})

    def open_view(self, sample_id: int) -> Image.Image:
        """Return what the subject saw of a sample as one RGB picture, black outside the images.

        Raises SampleError, and ValueError if the catalog has no source.
        """
        view = self[sample_id].view
        images = [self.open_image(image) for image in self[sample_id].images]
        picture = Image.new("RGB", (view.width, view.height))
        for image, box, left in view.panels:
            picture.paste(images[image].crop(box), (left, 0))
        return picture

    def open_images(self, sample_id: int) -> list[Image.Image]:
        """Return a sample's whole, upright images, RGB. Raises as `open_image` does.

        Decodes them: this is for stages that open each sample once.
        """
        return [self._decode(image) for image in self[sample_id].images]

    def open_image(self, reference: str) -> Image.Image:
        """Return one of a sample's `images`, whole and upright, RGB.

        Decodes it once if the catalog was opened with `images`. Raises SampleError, and ValueError
        if the catalog has no source.
        """
        if self.images is None or self.source is None:
            return self._decode(reference)
        return self.images.open(reference, lambda: self._decode(reference))

    def _decode(self, reference: str) -> Image.Image:
        if self.source is None:
            raise ValueError("the catalog has no images: it was opened without a source")
        return self.source.open_image(reference).pixels


def open_catalog(
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    concepts: Sequence[Path] = (),
    clusters: ImageClusterFiles | None = None,
    *,
    sample_ids: Collection[int] | None = None,
    source: Source | None = None,
    images: DecodedImages | None = None,
) -> Catalog:
    """Read the usable samples from their artifacts.

    clusters: of patches; None reads none. sample_ids: read only these samples, and only the row
    groups that hold them; all by default. images: where decoded images are shared, for a stage that
    opens an image more than once.
    """
    described = read_table(descriptions, DESCRIPTIONS, sample_ids=sample_ids)
    listed = read_table(samples, SAMPLES, sample_ids=described["sample_id"].to_pylist())
    rows = {
        row["sample_id"]: row
        for row in listed.select(
            ["sample_id", "source_id", "images", "width", "height"]
        ).to_pylist()
    }
    usable = described.filter(pc.is_in(described["status"], value_set=pa.array(USABLE)))
    by_id = {
        row["sample_id"]: Sample(
            sample_id=row["sample_id"],
            source_id=rows[row["sample_id"]]["source_id"],
            images=tuple(rows[row["sample_id"]]["images"]),
            text=row["text"],
            tokens=tuple(row["tokens"]),
            regions=read_regions(row["regions"]),
            width=rows[row["sample_id"]]["width"] or 0,
            height=rows[row["sample_id"]]["height"] or 0,
        )
        for row in usable.to_pylist()
    }
    truths = _truths(read_table(concepts, CONCEPTS, sample_ids=by_id))
    patches = {} if clusters is None else read_image_clusters(clusters, by_id)
    return Catalog(by_id, truths, source, images, patches)


def open_texts(descriptions: Sequence[Path], sample_ids: Collection[int] | None = None) -> Catalog:
    """Read no more of the usable samples than their text, its tokens and their regions.

    The samples have no image or source. sample_ids: read only these; all by default.
    """
    columns = ["sample_id", "text", "tokens", "regions", "status"]
    described = read_table(descriptions, DESCRIPTIONS, columns, sample_ids=sample_ids)
    usable = described.filter(pc.is_in(described["status"], value_set=pa.array(USABLE)))
    return Catalog(
        {
            row["sample_id"]: Sample(
                row["sample_id"],
                "",
                (),
                row["text"],
                tuple(row["tokens"]),
                read_regions(row["regions"]),
                0,
                0,
            )
            for row in usable.to_pylist()
        }
    )


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
    return {sample_id: tuple(concepts) for sample_id, concepts in truths.items()}
