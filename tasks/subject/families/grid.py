"""Input and output of a family's adapter: the processed sample, and its grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from neuron_atlas.tasks.artifacts.regions import Region


@dataclass(frozen=True)
class ProcessedSample:
    """A sample as the processor prepared it for the model.

    config: the model's configuration. sizes: width and height (px) of each original image.
    input_ids: int64 [tokens]. placeholder: token id that image features replace. inputs: all other
    outputs of the processor.
    """

    config: Any
    processor: Any
    sizes: Sequence[tuple[int, int]]
    input_ids: torch.Tensor
    placeholder: int
    inputs: Mapping[str, torch.Tensor]

    def runs(self) -> list[int]:
        """Return the lengths of the contiguous runs of placeholders, in sequence order."""
        runs = groupby((self.input_ids == self.placeholder).tolist())
        return [len(list(run)) for is_placeholder, run in runs if is_placeholder]


@dataclass(frozen=True)
class Grid:
    """A region, and its placeholders that are not visual tokens.

    row_ends: one such placeholder follows each row. end: one follows the last token.
    """

    region: Region
    row_ends: bool = False
    end: bool = False


def visual_mask(grids: Sequence[Grid]) -> torch.Tensor:
    """Return whether each placeholder of a sample is a visual token: bool [placeholders]."""
    parts = [torch.zeros(0, dtype=torch.bool)]
    for grid in grids:
        rows = torch.ones(grid.region.rows, grid.region.columns + grid.row_ends, dtype=torch.bool)
        if grid.row_ends:
            rows[:, -1] = False
        parts += [rows.flatten(), torch.zeros(int(grid.end), dtype=torch.bool)]
    return torch.cat(parts)


def tile_grids(image: int, size: tuple[int, int], rows: int, columns: int, side: int) -> list[Grid]:
    """Return the grids of an image cut into equal tiles of side x side tokens, in row-major order.

    size: width and height of the image, px. rows, columns: of tiles.
    """
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


def whole_image_grid(image: int, size: tuple[int, int], rows: int, columns: int) -> Grid:
    """Return one grid of rows x columns tokens over a whole image of `size` (width, height) px."""
    return Grid(Region(image, rows, columns, 0.0, 0.0, float(size[0]), float(size[1])))
