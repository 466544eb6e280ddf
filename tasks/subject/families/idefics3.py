"""Idefics3 and SmolVLM: tiles that the prompt numbers by row and column, then the whole image."""

from __future__ import annotations

import math
import re

from neuron_atlas.tasks.subject.families.grid import (
    Grid,
    ProcessedSample,
    tile_grids,
    whole_image_grid,
)

_MARKER = re.compile(r"<row_(\d+)_col_(\d+)>|<global-img>")


def lay_out(sample: ProcessedSample) -> list[Grid]:
    """Return the tiles of each image in row-major order, as the prompt numbers them, then one grid
    over the whole image."""
    side = math.isqrt(sample.processor.image_seq_len)
    markers = _MARKER.finditer(sample.processor.tokenizer.decode(sample.input_ids))
    grids = []
    for image, size in enumerate(sample.sizes):
        last = (0, 0)
        # The marker of the whole image is the last one of an image.
        for marker in markers:
            if marker.group(1) is None:
                break
            last = (int(marker.group(1)), int(marker.group(2)))
        grids += tile_grids(image, size, *last, side)
        grids.append(whole_image_grid(image, size, side, side))
    return grids
