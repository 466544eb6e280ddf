"""Map the visual tokens of a sample to its images: grids of patches over image boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

_MOST_ROWS = 2**15 - 1
_MOST_IMAGES = 2**7 - 1
"""Largest number of rows or columns, and largest index of an image, in the table `descriptions`."""


@dataclass(frozen=True)
class Region:
    """Grid of visual tokens over a box of one image, in row-major order.

    image: index among the sample's images, from 0. rows, columns: size of the grid, in tokens.
    left, top, right, bottom: the box in px of the original image; it may exceed the image where
    the subject sees padding. A sample's regions cover all its visual tokens, in their order. They
    may overlap, like a thumbnail and the tiles of the same image.
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
        """Number of visual tokens in the grid."""
        return self.rows * self.columns


@dataclass(frozen=True)
class View:
    """Layout of all images of a sample in one picture, side by side, as the subject saw them.

    width, height: size of the picture, px. panels: (image index, box in the image, left edge in
    the picture), px. regions: the sample's regions, with their boxes in the picture.
    """

    width: int
    height: int
    panels: tuple[tuple[int, tuple[int, int, int, int], int], ...]
    regions: tuple[Region, ...]


def read_regions(rows: Sequence[Mapping[str, Any]]) -> tuple[Region, ...]:
    """Return the regions of one row of `descriptions`."""
    return tuple(Region(**row) for row in rows)


def count_tokens(regions: Sequence[Region]) -> int:
    """Return the number of visual tokens of a sample."""
    return sum(region.tokens for region in regions)


def why_not_shown(regions: Sequence[Region]) -> str:
    """Return why an image of a sample cannot be shown with its visual tokens, or "" if all can."""
    for region in regions:
        if region.rows < 1 or region.columns < 1:
            return (
                f"image {region.image + 1} gives a grid of {region.rows} x {region.columns} visual "
                "tokens: it is too narrow"
            )
        if max(region.rows, region.columns) > _MOST_ROWS or region.image > _MOST_IMAGES:
            return f"more than {_MOST_IMAGES + 1} images, or more than {_MOST_ROWS} rows of tokens"
    for image, (left, top, right, bottom), _ in view_of(tuple(regions)).panels:
        if right <= left or bottom <= top:
            return f"the subject sees less than a pixel of image {image + 1}: it is too narrow"
    return ""


def token_boxes(regions: Sequence[Region]) -> np.ndarray:
    """Return the box of each visual token, (left, top, right, bottom) in the px of its region's
    box: float32 [n_visual, 4]."""
    boxes = [np.empty((0, 4), dtype=np.float32)]
    for region in regions:
        x = np.linspace(region.left, region.right, region.columns + 1, dtype=np.float32)
        y = np.linspace(region.top, region.bottom, region.rows + 1, dtype=np.float32)
        left, top = np.meshgrid(x[:-1], y[:-1])
        right, bottom = np.meshgrid(x[1:], y[1:])
        boxes.append(np.stack([left, top, right, bottom], -1).reshape(-1, 4))
    return np.concatenate(boxes)


def grid_shares(tokens: int, start: float, stop: float, cells: int) -> np.ndarray:
    """Return the overlap of a grid's rows (or columns) with the rows (columns) of a map, as a share
    of each grid row: float64 [tokens, cells].

    start, stop: start of the first grid row and end of the last one, as fractions of the map's
    extent. Parts outside the map are in no cell. With these shares, rows @ map @ columns.T is the
    mean of the map over each token's box, taking the map as 0 outside.
    """
    edges = np.linspace(start, stop, tokens + 1)
    bounds = np.linspace(0, 1, cells + 1)
    low = np.maximum(edges[:-1, None], bounds[None, :-1])
    high = np.minimum(edges[1:, None], bounds[None, 1:])
    return np.clip(high - low, 0, None) / ((stop - start) / tokens)


@lru_cache(maxsize=8192)
def view_of(regions: tuple[Region, ...]) -> View:
    """Lay out the part of each image that its regions cover, from left to right."""
    panels = []
    shifts = {}
    panel_left = 0
    for image in dict.fromkeys(region.image for region in regions):
        grids = [region for region in regions if region.image == image]
        box = (
            round(min(region.left for region in grids)),
            round(min(region.top for region in grids)),
            round(max(region.right for region in grids)),
            round(max(region.bottom for region in grids)),
        )
        panels.append((image, box, panel_left))
        shifts[image] = (panel_left - box[0], -box[1])
        panel_left += box[2] - box[0]
    height = max((box[3] - box[1] for _, box, _ in panels), default=0)
    shifted = tuple(_shift(region, *shifts[region.image]) for region in regions)
    return View(panel_left, height, tuple(panels), shifted)


def activation_map(view: View, activations: np.ndarray) -> np.ndarray:
    """Return activations [n_visual] as one map over a view: float32 [rows, columns], equal cells.

    A cell is about as large as the smallest patch; the map of a single grid is the grid. Where
    regions overlap, a cell holds the highest value. A mean would show values that no token has,
    and would fade a strong token under a silent, coarser one. Cells without a region are 0.
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
        map_rows, row = _steps_of(y, region.top, region.bottom, region.rows)
        map_columns, column = _steps_of(x, region.left, region.right, region.columns)
        covered = np.ix_(map_rows, map_columns)
        heat[covered] = np.maximum(heat[covered], grid[np.ix_(row, column)])
    return np.where(np.isneginf(heat), 0, heat).astype(np.float32)


def finest_grids(view: View) -> tuple[tuple[int, int], ...]:
    """Return, for each panel, how many rows and columns of cells as large as its smallest patches
    fit into it; for a single grid, the grid's rows and columns."""
    return tuple(
        _finest(
            [region for region in view.regions if region.image == image],
            box[2] - box[0],
            box[3] - box[1],
        )
        for image, box, _ in view.panels
    )


def map_to_tokens(view: View, cells: Sequence[np.ndarray]) -> np.ndarray:
    """Average maps over the panels of a view to one value per visual token: float32 [n_visual].

    cells: one map per panel, float [rows, columns], of equal cells over the whole panel. A token's
    value is the mean over the cells that its box overlaps, weighted by the overlap.
    """
    maps = {
        image: (values, left, box[2] - box[0], box[3] - box[1])
        for values, (image, box, left) in zip(cells, view.panels, strict=True)
    }
    tokens = [np.empty(0, dtype=np.float32)]
    for region in view.regions:
        values, left, width, height = maps[region.image]
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
    """Return the overlap [steps, cells] of `steps` equal steps from `first` to `last` with `cells`
    equal cells from `start` to `stop`. Each row sums to 1, or to 0 if the step is in no cell."""
    size = stop - start
    within = grid_shares(steps, (first - start) / size, (last - start) / size, cells)
    return within / np.maximum(within.sum(axis=1, keepdims=True), 1e-9)


def _steps_of(
    positions: np.ndarray, start: float, stop: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the `positions` between `start` and `stop`, and for each of them which
    of `count` equal steps it is in."""
    step = np.floor((positions - start) / (stop - start) * count).astype(int)
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
