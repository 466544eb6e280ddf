"""Sees what a picture of plain things on a plain background shows, from its pixels alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from tests.loopback.looking import COLORS

EDGE = 22
"""Of a picture with a grid: the width (px) of its white edges with numbers."""
FINE = 150
"""Pixels of a side that are looked at, about; of larger pictures some are passed over."""
LEAST_PIXELS = 30
WIDTHS = {"circle": 1.64, "square": 1.414, "triangle": 1.732, "star": 1.902, "cross": 1.926}
"""Of a thing in the circle around its centre, in radii of that circle."""
LARGE = 0.133
"""Radius, as a share of the picture's height, from which a thing is large."""
PLACES = {
    "top left": (0.22, 0.22),
    "top right": (0.78, 0.22),
    "center": (0.50, 0.50),
    "bottom left": (0.22, 0.78),
    "bottom right": (0.78, 0.78),
}


@dataclass(frozen=True)
class Thing:
    """What a person would say of it, and which pixels it has (bool [height, width])."""

    traits: frozenset[str]
    pixels: np.ndarray


@dataclass(frozen=True)
class Sight:
    """A picture as it is seen."""

    things: tuple[Thing, ...]
    background: str
    shape: tuple[int, int]

    def showing(self, names: frozenset[str]) -> np.ndarray:
        """The pixels, bool [height, width], that show something of these names."""
        shown = np.zeros(self.shape, dtype=bool)
        taken = np.zeros(self.shape, dtype=bool)
        for thing in self.things:
            taken |= thing.pixels
            if thing.traits & names:
                shown |= thing.pixels
        return shown | ~taken if self.background in names else shown


def within_grid(picture: Image.Image, rows: int, columns: int) -> np.ndarray:
    """The pixels [height, width, 3] without the edges, and with the lines of the grid painted over
    by what is beside them."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.int16)[EDGE:, EDGE:].copy()
    for axis, cells in ((0, rows), (1, columns)):
        moved = np.moveaxis(pixels, axis, 0)
        for line in np.rint(np.linspace(0, len(moved), cells + 1)).astype(int)[1:-1]:
            moved[line - 3 : line] = moved[line - 4]
            moved[line : line + 3] = moved[line + 3]
    return pixels


def see(pixels: np.ndarray) -> Sight:
    """The things in a picture [height, width, 3]."""
    step = max(1, min(pixels.shape[:2]) // FINE)
    pixels = pixels[::step, ::step].astype(np.float32)
    palette = np.array(list(COLORS.values()), dtype=np.float32)
    nearest = ((pixels[:, :, None] - palette) ** 2).sum(axis=-1).argmin(axis=-1)
    counts = np.bincount(nearest.ravel(), minlength=len(palette))
    background = int(counts.argmax())
    floor = np.median(pixels[nearest == background], axis=0)
    stands_out = np.abs(pixels - floor).sum(axis=-1) > 60
    things = tuple(_things(stands_out, nearest, background))
    return Sight(things, list(COLORS)[background], nearest.shape)


def _things(stands_out: np.ndarray, nearest: np.ndarray, background: int) -> Iterator[Thing]:
    labels, count = ndimage.label(stands_out, structure=np.ones((3, 3)))
    for number in range(1, count + 1):
        mine = labels == number
        if mine.sum() < LEAST_PIXELS:
            continue
        colors = np.bincount(nearest[mine], minlength=len(COLORS))
        colors[background] = 0
        shape, size = _shape(mine)
        centre = ndimage.center_of_mass(mine)
        y, x = centre[0] / mine.shape[0], centre[1] / mine.shape[1]
        place = min(PLACES, key=lambda name: abs(PLACES[name][0] - x) + abs(PLACES[name][1] - y))
        yield Thing(frozenset([list(COLORS)[int(colors.argmax())], shape, size, place]), mine)


def _shape(mine: np.ndarray) -> tuple[str, str]:
    rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
    box = mine[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    filled, foot = box.mean(), box[int(0.92 * len(box)) :].any(axis=0).mean()
    if filled > 0.89:
        shape = "square"
    elif filled > 0.65:
        shape = "circle"
    elif filled > 0.42:
        shape = "triangle" if foot > 0.7 else "cross"
    else:
        shape = "star"
    radius = box.shape[1] / WIDTHS[shape] / mine.shape[0]
    return shape, "large" if radius > LARGE else "small"
