"""Where the visual tokens of a sample look: grids of patches laid over its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Region:
    """A grid of visual tokens over a box of one image; its tokens run row by row.

    image: which of the sample's images, from 0. rows, columns: of the grid, in tokens. left, top,
    right, bottom: px of that original image; the box may leave it, where the subject sees padding.
    The regions of a sample stand in the order of its visual tokens, and hold all of them. They may
    overlap, as a thumbnail and the tiles of the same image do.
    """

    image: int
    rows: int
    columns: int
    left: float
    top: float
    right: float
    bottom: float

    @property
    def tokens(self) -> int:
        """Visual tokens of the grid."""
        return self.rows * self.columns


@dataclass(frozen=True)
class View:
    """All that the subject saw of a sample as one picture: its images side by side.

    width, height: px of the picture. panels: (image, box in the image, left edge in the picture).
    regions: the sample's, with their boxes in the picture.
    """

    width: int
    height: int
    panels: tuple[tuple[int, tuple[int, int, int, int], int], ...]
    regions: tuple[Region, ...]


def read_regions(rows: Sequence[Mapping[str, Any]]) -> tuple[Region, ...]:
    """The regions of one row of `descriptions`."""
    return tuple(Region(**row) for row in rows)


def count_tokens(regions: Sequence[Region]) -> int:
    """Visual tokens of a sample."""
    return sum(region.tokens for region in regions)


def token_boxes(regions: Sequence[Region]) -> np.ndarray:
    """Left, top, right, bottom of what each visual token looks at: float32 [n_visual, 4]."""
    boxes = [np.empty((0, 4), dtype=np.float32)]
    for region in regions:
        x = np.linspace(region.left, region.right, region.columns + 1, dtype=np.float32)
        y = np.linspace(region.top, region.bottom, region.rows + 1, dtype=np.float32)
        left, top = np.meshgrid(x[:-1], y[:-1])
        right, bottom = np.meshgrid(x[1:], y[1:])
        boxes.append(np.stack([left, top, right, bottom], -1).reshape(-1, 4))
    return np.concatenate(boxes)


def grid_shares(tokens: int, start: float, stop: float, cells: int) -> np.ndarray:
    """Which share of each of a grid's rows (or columns) lies in each row of a map: float64
    [tokens, cells].

    start, stop: where the grid's first row begins and its last one ends, as fractions of what the
    map covers; what lies outside of it is in no cell. So rows @ map @ columns.T is the mean of the
    map over each token's box, with 0 beyond the map.
    """
    edges = np.linspace(start, stop, tokens + 1)
    bounds = np.linspace(0, 1, cells + 1)
    low = np.maximum(edges[:-1, None], bounds[None, :-1])
    high = np.minimum(edges[1:, None], bounds[None, 1:])
    return np.clip(high - low, 0, None) / ((stop - start) / tokens)


@lru_cache(maxsize=8192)
def view_of(regions: tuple[Region, ...]) -> View:
    """Lay out the part of every image that its regions cover, from left to right."""
    panels = []
    moved = {}
    across = 0
    for image in dict.fromkeys(region.image for region in regions):
        mine = [region for region in regions if region.image == image]
        box = (
            round(min(region.left for region in mine)),
            round(min(region.top for region in mine)),
            round(max(region.right for region in mine)),
            round(max(region.bottom for region in mine)),
        )
        panels.append((image, box, across))
        moved[image] = (across - box[0], -box[1])
        across += box[2] - box[0]
    height = max((box[3] - box[1] for _, box, _ in panels), default=0)
    placed = tuple(_shift(region, *moved[region.image]) for region in regions)
    return View(across, height, tuple(panels), placed)


def heat_over(view: View, activations: np.ndarray) -> np.ndarray:
    """Activations [n_visual] as one map over a view: float32 [rows, columns] of equal cells.

    A cell is about as large as the smallest patch; over a single grid the map is the grid. Where
    regions overlap, a cell takes the highest of them: a mean would show a value that no token had,
    and would fade a strong token because a coarser one over the same place is silent. What no
    region covers is 0.
    """
    if not view.regions:
        return np.zeros((0, 0), dtype=np.float32)
    if len(view.regions) == 1:
        (region,) = view.regions
        return activations.reshape(region.rows, region.columns).astype(np.float32)
    rows, columns = _finest(view.regions, view.width, view.height)
    y = (np.arange(rows) + 0.5) * view.height / rows
    x = (np.arange(columns) + 0.5) * view.width / columns
    heat = np.full((rows, columns), -np.inf, dtype=np.float32)
    first = 0
    for region in view.regions:
        grid = activations[first : first + region.tokens].reshape(region.rows, region.columns)
        first += region.tokens
        cells_down, row = _fall_into(y, region.top, region.bottom, region.rows)
        cells_across, column = _fall_into(x, region.left, region.right, region.columns)
        inside = np.ix_(cells_down, cells_across)
        heat[inside] = np.maximum(heat[inside], grid[np.ix_(row, column)])
    return np.where(np.isneginf(heat), 0, heat).astype(np.float32)


def finest_grids(view: View) -> tuple[tuple[int, int], ...]:
    """For each panel the rows and columns of equal cells that are about as large as its smallest
    patches; over a single grid, those of the grid."""
    return tuple(
        _finest(
            [region for region in view.regions if region.image == image],
            box[2] - box[0],
            box[3] - box[1],
        )
        for image, box, _ in view.panels
    )


def over_tokens(view: View, cells: Sequence[np.ndarray]) -> np.ndarray:
    """Values of cells as those of the visual tokens: float32 [n_visual].

    cells: for each panel float [rows, columns], equal cells over all of it. A token's value is the
    mean over the cells that its box lies in, each weighing as much as it has of the box.
    """
    laid = {
        image: (values, left, box[2] - box[0], box[3] - box[1])
        for values, (image, box, left) in zip(cells, view.panels, strict=True)
    }
    tokens = [np.empty(0, dtype=np.float32)]
    for region in view.regions:
        values, left, width, height = laid[region.image]
        rows = _shares(region.top, region.bottom, region.rows, 0, height, values.shape[0])
        columns = _shares(
            region.left, region.right, region.columns, left, left + width, values.shape[1]
        )
        tokens.append((rows @ values @ columns.T).ravel().astype(np.float32))
    return np.concatenate(tokens)


def _finest(regions: Sequence[Region], width: int, height: int) -> tuple[int, int]:
    rows = round(height / min((r.bottom - r.top) / r.rows for r in regions))
    columns = round(width / min((r.right - r.left) / r.columns for r in regions))
    return max(rows, 1), max(columns, 1)


def _shares(
    first: float, last: float, steps: int, start: float, stop: float, cells: int
) -> np.ndarray:
    """Of each of `steps` equal steps from `first` to `last`, the share [steps, cells] that lies in
    each of `cells` equal cells from `start` to `stop`; a step counts as far as it lies in any."""
    size = stop - start
    within = grid_shares(steps, (first - start) / size, (last - start) / size, cells)
    return within / np.maximum(within.sum(axis=1, keepdims=True), 1e-9)


def _fall_into(
    places: np.ndarray, start: float, stop: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which of `places` lie in `count` equal steps from `start` to `stop`, and in which step."""
    step = np.floor((places - start) / (stop - start) * count).astype(int)
    within = np.flatnonzero((step >= 0) & (step < count))
    return within, step[within]


def _shift(region: Region, right: float, down: float) -> Region:
    return replace(
        region,
        left=region.left + right,
        right=region.right + right,
        top=region.top + down,
        bottom=region.bottom + down,
    )
