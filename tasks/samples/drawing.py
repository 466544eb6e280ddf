"""Draw plain shapes with smooth edges, and compute the area that each shape covers."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 4
SHAPES = ("circle", "square", "triangle", "star", "cross")


@dataclass(frozen=True)
class DrawnShape:
    """Filled shape inside a circle.

    x, y: center of the circle; radius: its radius. All three are fractions of the image's side, so
    a figure looks the same at every image size.
    """

    shape: str
    rgb: tuple[int, int, int]
    x: float
    y: float
    radius: float


def paint(figures: list[DrawnShape], background: tuple[int, int, int], size: int) -> Image.Image:
    """Draw figures on a plain background: an RGB image of `size` x `size` px."""
    image = Image.new("RGB", (size, size), background)
    for figure in figures:
        stencil, corner = _stencil(figure, size)
        image.paste(figure.rgb, (*corner, *_far_corner(corner, stencil)), stencil)
    return image


def coverage(figure: DrawnShape, size: int, grid: int) -> np.ndarray:
    """Return the share of each cell that the figure covers: uint8 [grid, grid], 255 = all of it.

    Counts the same pixels that `paint` fills at this `size`.
    """
    canvas = Image.new("L", (size, size), 0)
    stencil, corner = _stencil(figure, size)
    canvas.paste(stencil, corner)
    return np.asarray(canvas.resize((grid, grid), Image.Resampling.BOX))


def _stencil(figure: DrawnShape, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """Return the figure's opacity in its bounding window, and the window's top left corner (px)."""
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


def _outline(figure: DrawnShape) -> list[tuple[float, float]]:
    return [
        (figure.x + figure.radius * dx, figure.y + figure.radius * dy)
        for dx, dy in _UNIT_OUTLINES[figure.shape]
    ]


def _spokes(*lengths: float, turn: float = 0.0, count: int) -> list[tuple[float, float]]:
    """Return `count` corners at even angles, clockwise from the top, at alternating `lengths`."""
    angles = [2 * math.pi * i / count + turn for i in range(count)]
    radii = [lengths[i % len(lengths)] for i in range(count)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=True)]


def _cross(arm: float) -> list[tuple[float, float]]:
    """Return the outline of a plus sign whose arms are `2 * arm` wide and reach the unit circle."""
    reach = math.sqrt(1 - arm**2)
    quarter = [(arm, -reach), (arm, -arm), (reach, -arm)]
    corners: list[tuple[float, float]] = []
    for _ in range(4):
        corners += quarter
        quarter = [(-y, x) for x, y in quarter]
    return corners


# Inside the unit circle; y points down, like image rows.
_UNIT_OUTLINES = {
    "circle": _spokes(0.82, count=48),
    "square": _spokes(1.0, turn=math.pi / 4, count=4),
    "triangle": _spokes(1.0, count=3),
    "star": _spokes(1.0, 0.42, count=10),
    "cross": _cross(0.27),
}
