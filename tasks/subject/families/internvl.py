"""InternVL: tiles close to the image's aspect ratio, then a thumbnail."""

from __future__ import annotations

import math

from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from neuron_atlas.tasks.subject.families.grid import (
    Grid,
    ProcessedSample,
    tile_grids,
    whole_image_grid,
)
from neuron_atlas.tasks.subject.settings import TokenCountError


def lay_out(sample: ProcessedSample) -> list[Grid]:
    """Return the tiles of each image in row-major order and its thumbnail, or one grid over the
    whole image if it is not cut.

    Raises TokenCountError if the number of tiles does not match InternVL's rule.
    """
    grids = []
    tile_tokens = sample.config.image_seq_length
    side = math.isqrt(tile_tokens)
    settings = sample.processor.image_processor
    for image, (size, run) in enumerate(zip(sample.sizes, sample.runs(), strict=True)):
        n_tiles = run // tile_tokens - 1
        if n_tiles > 0:
            columns, rows = get_optimal_tiled_canvas(
                (size[1], size[0]),
                (settings.size.height, settings.size.width),
                settings.min_patches,
                settings.max_patches,
            )
            if rows * columns != n_tiles:
                raise TokenCountError(
                    f"the processor cuts an image of {size[0]} x {size[1]} px into {n_tiles} "
                    f"tiles, but InternVL's rule gives {rows} x {columns}"
                )
            grids += tile_grids(image, size, rows, columns, side)
        grids.append(whole_image_grid(image, size, side, side))
    return grids
