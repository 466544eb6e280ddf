"""Draws a grid over a picture, its rows and columns numbered along the edges."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

RULER = 22
"""Width (px) of the white edges at the left and the top that hold the numbers."""
LEAST_SIZE = 128
"""The smallest `size`: below it the numbers could not be read."""
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)
_FONT = 13
_SMALLEST_FONT = 6


def draw_grid(picture: Image.Image, rows: int, columns: int, size: int) -> Image.Image:
    """The picture with `rows` x `columns` equal cells, within `size` x `size` px.

    The lines between cells are a dark pixel beside a light one, to be seen on whatever they cross,
    and nothing is written over the picture itself.
    """
    scale = min((size - RULER) / picture.width, (size - RULER) / picture.height)
    width, height = (max(1, int(side * scale + 1e-6)) for side in picture.size)
    kernel = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    whole = Image.new("RGB", (RULER + width, RULER + height), _LIGHT)
    shown = picture.convert("RGB").resize((width, height), kernel, reducing_gap=3.0)
    whole.paste(shown, (RULER, RULER))
    pen = ImageDraw.Draw(whole)
    across, down = _edges(width, columns), _edges(height, rows)
    for x in across[1:-1]:
        pen.line((x - 1, RULER, x - 1, whole.height), _DARK)
        pen.line((x, RULER, x, whole.height), _LIGHT)
    for y in down[1:-1]:
        pen.line((RULER, y - 1, whole.width, y - 1), _DARK)
        pen.line((RULER, y, whole.width, y), _LIGHT)
    for edges, at in ((across, "top"), (down, "left")):
        room = min(np.diff(edges).min(), RULER)
        font = ImageFont.load_default(int(np.clip(0.7 * room, _SMALLEST_FONT, _FONT)))
        for number, (start, stop) in enumerate(pairwise(edges), start=1):
            middle = (start + stop) / 2
            place = (middle, RULER / 2) if at == "top" else (RULER / 2, middle)
            pen.text(place, str(number), _DARK, font, anchor="mm")
    return whole


def _edges(length: int, cells: int) -> list[int]:
    """Where cells begin and end, in px of the drawn picture."""
    return [RULER + int(edge) for edge in np.rint(np.linspace(0, length, cells + 1))]
