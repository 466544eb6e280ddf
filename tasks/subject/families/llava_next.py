"""LLaVA-NeXT and LLaVA-OneVision: a thumbnail, then all tiles of an image as one large grid."""

from __future__ import annotations

import math

import torch
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.subject.families.grid import Grid, ProcessedSample, whole_image_grid

_LARGEST_UNSHRUNK = 1.1
"""OneVision shrinks a grid whose sides exceed the limit by more than this factor."""


def lay_out(sample: ProcessedSample) -> list[Grid]:
    """Return for each image its thumbnail, then the grid of its tiles, with a newline placeholder
    after each row."""
    return [grid for image in range(len(sample.sizes)) for grid in _any_resolution(sample, image)]


def lay_out_onevision(sample: ProcessedSample) -> list[Grid]:
    """Return the same grids for a sample with one image, the tile grid shrunk if it is too large.
    In a sample with several images, each is padded to a square and has no tiles."""
    if len(sample.sizes) == 1:
        thumbnail, tiled = _any_resolution(sample, 0)
        return [thumbnail, _shrink(sample, tiled)]
    side = _patches(sample)
    return [
        Grid(Region(image, side, side, *_padded_to_square(*size)), end=True)
        for image, size in enumerate(sample.sizes)
    ]


def _any_resolution(sample: ProcessedSample, image: int) -> tuple[Grid, Grid]:
    width, height = size = sample.sizes[image]
    side = _patches(sample)
    tile = sample.config.vision_config.image_size
    canvas_height, canvas_width = select_best_resolution(
        (height, width), sample.config.image_grid_pinpoints
    )
    # The model removes the padding from its feature grid, in whole patches.
    all_rows, all_columns = canvas_height // tile * side, canvas_width // tile * side
    unpadded = unpad_image(torch.empty(1, all_rows, all_columns), (height, width))
    rows, columns = unpadded.shape[1:]
    # The processor fits the image into the canvas and pads it on both sides.
    scale = min(canvas_width / width, canvas_height / height)
    fitted_width = min(math.ceil(width * scale), canvas_width)
    fitted_height = min(math.ceil(height * scale), canvas_height)
    patch = tile / side
    left = (all_columns - columns) // 2 * patch - (canvas_width - fitted_width) // 2
    top = (all_rows - rows) // 2 * patch - (canvas_height - fitted_height) // 2
    scale_x, scale_y = width / fitted_width, height / fitted_height
    region = Region(
        image,
        rows,
        columns,
        left * scale_x,
        top * scale_y,
        (left + columns * patch) * scale_x,
        (top + rows * patch) * scale_y,
    )
    return whole_image_grid(image, size, side, side), Grid(region, row_ends=True)


def _shrink(sample: ProcessedSample, grid: Grid) -> Grid:
    """Return the grid over the same box, with the size that the model interpolates it to."""
    max_tiles = int(sample.config.vision_aspect_ratio.removeprefix("anyres_max_"))
    region = grid.region
    ratio = math.sqrt(region.tokens / (max_tiles * _patches(sample) ** 2))
    if ratio <= _LARGEST_UNSHRUNK:
        return grid
    rows, columns = int(region.rows // ratio), int(region.columns // ratio)
    box = (region.left, region.top, region.right, region.bottom)
    return Grid(Region(region.image, rows, columns, *box), row_ends=True)


def _padded_to_square(width: int, height: int) -> tuple[float, float, float, float]:
    side = max(width, height)
    left, top = -((side - width) // 2), -((side - height) // 2)
    return float(left), float(top), float(left + side), float(top + side)


def _patches(sample: ProcessedSample) -> int:
    """Return the number of patches along a side of the vision tower's input."""
    vision = sample.config.vision_config
    return int(vision.image_size // vision.patch_size)
