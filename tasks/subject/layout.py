"""Lay out a sample's visual tokens over its images, by the known or probed layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.subject.families.grid import Grid, ProcessedSample, visual_mask

LayOut = Callable[[ProcessedSample], list[Grid]]


@dataclass(frozen=True)
class Layout:
    """Where a subject's visual tokens look.

    kind: `known` by the family's function, `probed` on images, or `none`. lay_out: the function
    from a processed sample to its grids; None for `none`. about: a sentence on what was found.
    """

    kind: str = "none"
    lay_out: LayOut | None = None
    about: str = ""

    def grids(self, sample: ProcessedSample) -> list[Grid]:
        """Return the grids of a sample. Raises SubjectError if a known layout does not fit.

        A sample that a probed layout does not fit is unlocated, as all are without a layout.
        """
        if self.lay_out is None:
            return unlocated(sample)
        if self.kind == "known":
            return self.lay_out(sample)
        grids = fitting_grids(self.lay_out, sample)
        return unlocated(sample) if grids is None else grids


def fitting_grids(lay_out: LayOut, sample: ProcessedSample) -> list[Grid] | None:
    """Return the grids of a sample, or None if the function does not fit its placeholders."""
    try:
        grids = lay_out(sample)
    except Exception:  # A function of another family: any error means that it does not fit.
        return None
    has_tokens = all(grid.region.rows > 0 and grid.region.columns > 0 for grid in grids)
    return grids if has_tokens and len(visual_mask(grids)) == sum(sample.runs()) else None


def unlocated(sample: ProcessedSample) -> list[Grid]:
    """Return a grid of one token for each placeholder, over the whole image.

    It is not known which part of the image a token looks at. All placeholders count as visual.
    """
    return [
        Grid(Region(image, 1, 1, 0.0, 0.0, float(width), float(height)))
        for image, ((width, height), count) in enumerate(
            zip(sample.sizes, image_counts(sample), strict=True)
        )
        for _ in range(count)
    ]


def image_counts(sample: ProcessedSample) -> list[int]:
    """Return the number of placeholders of each image.

    The runs of placeholders are shared out to the images by number, and the placeholders if the
    runs do not divide.
    """
    n_images, runs = len(sample.sizes), sample.runs()
    if not n_images:
        return []
    parts = runs if len(runs) % n_images == 0 else _equal_parts(sum(runs), n_images)
    each = len(parts) // n_images
    return [sum(parts[image * each : (image + 1) * each]) for image in range(n_images)]


def is_located(regions: Sequence[Region]) -> bool:
    """Return whether the regions say where in an image a token looks."""
    return not regions or any(region.tokens > 1 for region in regions)


def _equal_parts(total: int, n: int) -> list[int]:
    return [total * (part + 1) // n - total * part // n for part in range(n)]
