"""Draw a grid over a picture, with rows and columns numbered along the edges."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

RULER = 22
"""Width (px) of the white margins at the left and the top, which hold the numbers."""
MIN_GRID_PX = 128
"""The smallest `size`: below it, the numbers are illegible."""
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)
_FONT = 13
_SMALLEST_FONT = 6


def draw_grid(picture: Image.Image, rows: int, columns: int, size: int) -> Image.Image:
    """Return the picture with `rows` x `columns` equal cells, within `size` x `size` px.

    Lines between cells are one dark and one light pixel wide, so they show on any background. The
    numbers are outside the picture.
    """
    scale = min((size - RULER) / picture.width, (size - RULER) / picture.height)
    width, height = (max(1, int(side * scale + 1e-6)) for side in picture.size)
    kernel = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    whole = Image.new("RGB", (RULER + width, RULER + height), _LIGHT)
    scaled = picture.convert("RGB").resize((width, height), kernel, reducing_gap=3.0)
    whole.paste(scaled, (RULER, RULER))
    pen = ImageDraw.Draw(whole)
    across, down = _edges(width, columns), _edges(height, rows)
    for x in across[1:-1]:
        pen.line((x - 1, RULER, x - 1, whole.height), _DARK)
        pen.line((x, RULER, x, whole.height), _LIGHT)
    for y in down[1:-1]:
        pen.line((RULER, y - 1, whole.width, y - 1), _DARK)
        pen.line((RULER, y, whole.width, y), _LIGHT)
    for edges, margin in ((across, "top"), (down, "left")):
        available = min(np.diff(edges).min(), RULER)
        font = ImageFont.load_default(int(np.clip(0.7 * available, _SMALLEST_FONT, _FONT)))
        for number, (start, stop) in enumerate(pairwise(edges), start=1):
            middle = (start + stop) / 2
            centre = (middle, RULER / 2) if margin == "top" else (RULER / 2, middle)
            pen.text(centre, str(number), _DARK, font, anchor="mm")
    return whole


def _edges(length: int, cells: int) -> list[int]:
    """Return the edges of the cells, in px of the drawn picture."""
    return [RULER + int(edge) for edge in np.rint(np.linspace(0, length, cells + 1))]
