"""LLaVA-NeXT and LLaVA-OneVision: a thumbnail, then tiles of any resolution as one large grid."""

from __future__ import annotations

import math

import torch
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.subject.families.grid import Grid, PreparedSample, whole

_LARGEST_UNSHRUNK = 1.1
"""OneVision shrinks a grid whose sides exceed those allowed by more than this factor."""


def lay_out(shown: PreparedSample) -> list[Grid]:
    """For each image its thumbnail, then the rows of its tiles with a newline after each."""
    return [grid for image in range(len(shown.sizes)) for grid in _any_resolution(shown, image)]


def lay_out_onevision(shown: PreparedSample) -> list[Grid]:
    """The same for one image, its grid shrunk where it is too large; several images are each
    padded to a square, and have no tiles."""
    if len(shown.sizes) == 1:
        thumbnail, tiled = _any_resolution(shown, 0)
        return [thumbnail, _shrunk(shown, tiled)]
    side = _patches(shown)
    return [
        Grid(Region(image, side, side, *_padded_to_square(*size)), end=True)
        for image, size in enumerate(shown.sizes)
    ]


def _any_resolution(shown: PreparedSample, image: int) -> tuple[Grid, Grid]:
    width, height = size = shown.sizes[image]
    side = _patches(shown)
    tile = shown.config.vision_config.image_size
    canvas_height, canvas_width = select_best_resolution(
        (height, width), shown.config.image_grid_pinpoints
    )
    # The model crops the padding off its grid of features, in whole patches.
    all_rows, all_columns = canvas_height // tile * side, canvas_width // tile * side
    kept = unpad_image(torch.empty(1, all_rows, all_columns), (height, width))
    rows, columns = kept.shape[1:]
    # The processor fitted the image into the canvas, and padded it on both sides.
    scale = min(canvas_width / width, canvas_height / height)
    fitted_width = min(math.ceil(width * scale), canvas_width)
    fitted_height = min(math.ceil(height * scale), canvas_height)
    patch = tile / side
    left = (all_columns - columns) // 2 * patch - (canvas_width - fitted_width) // 2
    top = (all_rows - rows) // 2 * patch - (canvas_height - fitted_height) // 2
    across, down = width / fitted_width, height / fitted_height
    region = Region(
        image,
        rows,
        columns,
        left * across,
        top * down,
        (left + columns * patch) * across,
        (top + rows * patch) * down,
    )
    return whole(image, size, side, side), Grid(region, row_ends=True)


def _shrunk(shown: PreparedSample, grid: Grid) -> Grid:
    """The grid over the same box with as many rows and columns as the model interpolates to."""
    most_tiles = int(shown.config.vision_aspect_ratio.removeprefix("anyres_max_"))
    region = grid.region
    ratio = math.sqrt(region.tokens / (most_tiles * _patches(shown) ** 2))
    if ratio <= _LARGEST_UNSHRUNK:
        return grid
    rows, columns = int(region.rows // ratio), int(region.columns // ratio)
    box = (region.left, region.top, region.right, region.bottom)
    return Grid(Region(region.image, rows, columns, *box), row_ends=True)


def _padded_to_square(width: int, height: int) -> tuple[float, float, float, float]:
    side = max(width, height)
    left, top = -((side - width) // 2), -((side - height) // 2)
    return float(left), float(top), float(left + side), float(top + side)


def _patches(shown: PreparedSample) -> int:
    """Patches along a side of what the vision tower sees at once."""
    vision = shown.config.vision_config
    return int(vision.image_size // vision.patch_size)
