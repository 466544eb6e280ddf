"""Idefics3 and SmolVLM: tiles named by row and column in the prompt, then the whole image."""

from __future__ import annotations

import math
import re

from neuron_atlas.tasks.subject.families.grid import Grid, PreparedSample, tiles, whole

_MARKER = re.compile(r"<row_(\d+)_col_(\d+)>|<global-img>")


def lay_out(shown: PreparedSample) -> list[Grid]:
    """The tiles of each image row by row, as the prompt names them, and the whole image."""
    side = math.isqrt(shown.processor.image_seq_len)
    markers = _MARKER.finditer(shown.processor.tokenizer.decode(shown.input_ids))
    grids = []
    for image, size in enumerate(shown.sizes):
        last = (0, 0)
        # An image's part of the prompt ends with the marker of the whole image.
        for marker in markers:
            if marker.group(1) is None:
                break
            last = (int(marker.group(1)), int(marker.group(2)))
        grids += tiles(image, size, *last, side)
        grids.append(whole(image, size, side, side))
    return grids
