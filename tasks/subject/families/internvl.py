"""InternVL: an image cut into tiles of nearly its own proportions, then a thumbnail."""

from __future__ import annotations

import math

from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from neuron_atlas.tasks.subject.families.grid import Grid, PreparedSample, tiles, whole
from neuron_atlas.tasks.subject.settings import SubjectError


def lay_out(shown: PreparedSample) -> list[Grid]:
    """The tiles of each image row by row and its thumbnail, or the whole image alone."""
    grids = []
    a_tile = shown.config.image_seq_length
    side = math.isqrt(a_tile)
    settings = shown.processor.image_processor
    for image, (size, run) in enumerate(zip(shown.sizes, shown.runs(), strict=True)):
        n_tiles = run // a_tile - 1
        if n_tiles > 0:
            columns, rows = get_optimal_tiled_canvas(
                (size[1], size[0]),
                (settings.size.height, settings.size.width),
                settings.min_patches,
                settings.max_patches,
            )
            if rows * columns != n_tiles:
                raise SubjectError(
                    f"the processor cuts an image of {size[0]} x {size[1]} px into {n_tiles} "
                    f"tiles, where InternVL's rule gives {rows} x {columns}"
                )
            grids += tiles(image, size, rows, columns, side)
        grids.append(whole(image, size, side, side))
    return grids
