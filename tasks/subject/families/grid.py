"""What a family's adapter is given of a sample, and what it tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from neuron_atlas.tasks.artifacts.regions import Region


@dataclass(frozen=True)
class PreparedSample:
    """A sample as the processor prepared it for the model.

    config: the model's. sizes: width and height (px) of each original image. input_ids: int64
    [tokens]. placeholder: the token id that an image's features take the place of. inputs: all
    else that the processor gives.
    """

    config: Any
    processor: Any
    sizes: Sequence[tuple[int, int]]
    input_ids: torch.Tensor
    placeholder: int
    inputs: Mapping[str, torch.Tensor]

    def runs(self) -> list[int]:
        """Lengths of the unbroken runs of placeholders, in the order of the sequence."""
        same = groupby((self.input_ids == self.placeholder).tolist())
        return [len(list(group)) for is_placeholder, group in same if is_placeholder]


@dataclass(frozen=True)
class Grid:
    """A region, and the placeholders among its own that look nowhere.

    row_ends: one stands after each row. end: one stands after the last token.
    """

    region: Region
    row_ends: bool = False
    end: bool = False


def looking(grids: Sequence[Grid]) -> torch.Tensor:
    """For each placeholder of a sample, whether it looks at its image: bool [placeholders]."""
    parts = [torch.zeros(0, dtype=torch.bool)]
    for grid in grids:
        rows = torch.ones(grid.region.rows, grid.region.columns + grid.row_ends, dtype=torch.bool)
        if grid.row_ends:
            rows[:, -1] = False
        parts += [rows.flatten(), torch.zeros(int(grid.end), dtype=torch.bool)]
    return torch.cat(parts)


def tiles(image: int, size: tuple[int, int], rows: int, columns: int, side: int) -> list[Grid]:
    """The grids of an image cut into equal tiles of side x side tokens, tile row by tile row."""
    width, height = size
    return [
        Grid(
            Region(
                image,
                side,
                side,
                column * width / columns,
                row * height / rows,
                (column + 1) * width / columns,
                (row + 1) * height / rows,
            )
        )
        for row in range(rows)
        for column in range(columns)
    ]


def whole(image: int, size: tuple[int, int], rows: int, columns: int) -> Grid:
    """One grid over all of an image."""
    return Grid(Region(image, rows, columns, 0.0, 0.0, float(size[0]), float(size[1])))
