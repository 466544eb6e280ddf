"""Plain shapes with smooth edges: the pixels of the drawn scenes, and where each shape lies."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 4
SHAPES = ("circle", "square", "triangle", "star", "cross")


@dataclass(frozen=True)
class Figure:
    """A filled shape that lies inside a circle around its centre.

    `x`, `y` and `radius` are shares of the image's side, so a figure is the same at every size.
    """

    shape: str
    rgb: tuple[int, int, int]
    x: float
    y: float
    radius: float


def paint(figures: list[Figure], background: tuple[int, int, int], size: int) -> Image.Image:
    """The figures on a plain background, as an RGB image of `size` x `size` pixels."""
    image = Image.new("RGB", (size, size), background)
    for figure in figures:
        stencil, corner = _stencil(figure, size)
        image.paste(figure.rgb, (*corner, *_far_corner(corner, stencil)), stencil)
    return image


def coverage(figure: Figure, size: int, grid: int) -> np.ndarray:
    """How much of each cell the figure covers: uint8 [grid, grid], 0 nothing to 255 all of it.

    It is taken from the very pixels that `paint` fills at this `size`.
    """
    whole = Image.new("L", (size, size), 0)
    stencil, corner = _stencil(figure, size)
    whole.paste(stencil, corner)
    return np.asarray(whole.resize((grid, grid), Image.Resampling.BOX))


def _stencil(figure: Figure, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """The figure's opacity in a window just large enough for it, and the window's corner (px)."""
    left = math.floor((figure.x - figure.radius) * size)
    top = math.floor((figure.y - figure.radius) * size)
    side = math.ceil(2 * figure.radius * size) + 1
    fine = Image.new("L", (side * SUPERSAMPLING, side * SUPERSAMPLING), 0)
    outline = [
        ((x * size - left) * SUPERSAMPLING, (y * size - top) * SUPERSAMPLING)
        for x, y in _outline(figure)
    ]
    ImageDraw.Draw(fine).polygon(outline, fill=255)
    return fine.reduce(SUPERSAMPLING), (left, top)


def _far_corner(corner: tuple[int, int], stencil: Image.Image) -> tuple[int, int]:
    return corner[0] + stencil.width, corner[1] + stencil.height


def _outline(figure: Figure) -> list[tuple[float, float]]:
    return [
        (figure.x + figure.radius * dx, figure.y + figure.radius * dy)
        for dx, dy in _UNIT_OUTLINES[figure.shape]
    ]


def _spokes(*lengths: float, turn: float = 0.0, count: int) -> list[tuple[float, float]]:
    """`count` corners at even angles, clockwise from straight up; the lengths take turns."""
    angles = [2 * math.pi * i / count + turn for i in range(count)]
    radii = [lengths[i % len(lengths)] for i in range(count)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def _cross(arm: float) -> list[tuple[float, float]]:
    """An upright plus sign whose arms are `2 * arm` wide and reach the unit circle."""
    reach = math.sqrt(1 - arm**2)
    quarter = [(arm, -reach), (arm, -arm), (reach, -arm)]
    corners: list[tuple[float, float]] = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


# Inside the unit circle, y downwards, as an image's rows.
_UNIT_OUTLINES = {
    "circle": _spokes(0.82, count=48),
    "square": _spokes(1.0, turn=math.pi / 4, count=4),
    "triangle": _spokes(1.0, count=3),
    "star": _spokes(1.0, 0.42, count=10),
    "cross": _cross(0.27),
}
