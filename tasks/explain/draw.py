"""Draw a neuron's activations over a picture: as a heat map, a mask or a crop.

Every rendering fits into `size` x `size` px, so its price is known before it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from neuron_atlas.tasks.evidence.evidence import to_levels

Render = Literal["heat", "mask", "crop"]

GAP = 8
"""Width (px) of the strip between a plain picture and its copy with the heat map: white, with a
black line in the middle."""
LEGEND = 22
"""Height (px) of the legend below a picture."""
MIN_VIEW_PX = 128
"""The smallest `size`: below it, legend and patches are illegible."""

# matplotlib's "plasma" without its darkest quarter; its steps look evenly spaced.
_HEAT = (
    (126, 3, 168), (156, 23, 158), (181, 47, 140), (204, 71, 120), (222, 95, 101),
    (237, 121, 83), (248, 149, 64), (253, 180, 47), (251, 213, 36), (240, 249, 33),
)  # fmt: skip
_HEAT_RGB = np.array([(0, 0, 0), *_HEAT], dtype=np.float32)
_HEAT_ALPHA = np.array([0, *[0.75] * 10], dtype=np.float32)
_GRAY_CONTRAST = 0.5
"""Contrast of the gray copy below the heat. The same gray shift of all channels, at most
(1 - 0.75) * 0.5 * 128 = 16, is all that the picture adds to a level's color."""
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_DARKEST = 0.18
_BRIGHTNESS = _DARKEST + (1 - _DARKEST) * (np.arange(11, dtype=np.float32) / 10) ** 0.75
"""Brightness of a patch under a mask, by level; the power keeps weak patches legible."""
_REGION_SHARE = 0.5
"""A crop holds patches with at least this share of the strongest patch's level."""
_MARGIN = 0.3
"""Margin of a crop on each side, as a share of the longer side of the active patches."""
_LEAST_WINDOW = 0.12
"""A crop shows at least this share of the picture's shorter side, for context."""


def draw_view(
    render: Render, view: Image.Image, boxes: np.ndarray, activations: np.ndarray, size: int
) -> Image.Image:
    """Return the view with its visual tokens' activations, within `size` x `size` px.

    boxes: float [n_visual, 4], left, top, right, bottom of each token's patch in px of the view;
    where boxes overlap, the highest activation shows. activations: float [n_visual], 0 to 10,
    rounded to integers.
    """
    return _RENDERINGS[render](view.convert("RGB"), boxes, to_levels(activations), size)


def draw_plain(view: Image.Image, size: int) -> Image.Image:
    """Return the view without activations, within `size` x `size` px."""
    return _scaled(view.convert("RGB"), _scale(view, size, size))


def draw_heat(view: Image.Image, boxes: np.ndarray, levels: np.ndarray, size: int) -> Image.Image:
    """Return the plain view and a gray copy with its heat map, over a legend.

    The plain view shows the true colors, which a neuron may respond to. Below the heat the copy is
    gray, so a level has the color of the legend, whatever the picture shows there. The two are side
    by side or stacked, whichever leaves them larger. The strongest patch has a black and white
    frame.
    """
    side_by_side = _scale(view, (size - GAP) // 2, size - LEGEND)
    stacked = _scale(view, size, (size - GAP - LEGEND) // 2)
    plain = _scaled(view, max(side_by_side, stacked))
    scaled = _scaled_boxes(boxes, plain, view)
    level_map = _level_map(scaled, levels, plain.size)
    heated = _picture(_heated(np.asarray(plain, dtype=np.float32) @ _LUMINANCE, level_map))
    if levels.max(initial=0) > 0:
        _frame(heated, scaled[int(levels.argmax())], thickness=1)
    offset = (plain.width + GAP, 0) if side_by_side >= stacked else (0, plain.height + GAP)
    both = Image.new("RGB", (plain.width + offset[0], plain.height + offset[1]), "white")
    middle = (offset[0] - GAP // 2, offset[1] - GAP // 2)
    start = (max(0, middle[0] - 1), max(0, middle[1] - 1))
    stop = (middle[0], both.height) if offset[0] else (both.width, middle[1])
    ImageDraw.Draw(both).rectangle((start, stop), fill="black")
    both.paste(plain, (0, 0))
    both.paste(heated, offset)
    return _with_legend(both, _heated(np.full(11, 128, dtype=np.float32), np.arange(11)))


def draw_mask(view: Image.Image, boxes: np.ndarray, levels: np.ndarray, size: int) -> Image.Image:
    """Return the view with each patch as bright as its activation, over a legend."""
    plain = _scaled(view, _scale(view, size, size - LEGEND))
    level_map = _level_map(_scaled_boxes(boxes, plain, view), levels, plain.size)
    lit = _picture(np.asarray(plain, dtype=np.float32) * _BRIGHTNESS[level_map][:, :, None])
    return _with_legend(lit, 255 * np.repeat(_BRIGHTNESS[:, None], 3, axis=1))


def draw_crop(view: Image.Image, boxes: np.ndarray, levels: np.ndarray, size: int) -> Image.Image:
    """Return the most active region, cropped, enlarged and in a black and white frame.

    The region is the strongest patch with all connected patches that are at least half as active.
    A view without activation is shown whole, without a frame.
    """
    if levels.max(initial=0) == 0:
        return draw_plain(view, size)
    region = _active_region(boxes, levels)
    window = _window(region, view.size)
    cropped = view.crop(window)
    scale = _scale(cropped, size, size)
    enlarged = _scaled(cropped, scale)
    origin = np.array([window[0], window[1]] * 2)
    _frame(enlarged, np.rint((region - origin) * scale).astype(int), thickness=2)
    return enlarged


_RENDERINGS: Mapping[str, Callable[[Image.Image, np.ndarray, np.ndarray, int], Image.Image]] = (
    MappingProxyType({"heat": draw_heat, "mask": draw_mask, "crop": draw_crop})
)


def _scale(view: Image.Image, width: int, height: int) -> float:
    return min(width / view.width, height / view.height)


def _scaled(view: Image.Image, scale: float) -> Image.Image:
    width, height = (max(1, int(side * scale + 1e-6)) for side in view.size)
    if view.size == (width, height):
        return view
    # Smooth enlargement: visible pixels would look like patches.
    kernel = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    return view.resize((width, height), kernel, reducing_gap=3.0)


def _scaled_boxes(boxes: np.ndarray, drawn: Image.Image, view: Image.Image) -> np.ndarray:
    """Return boxes int [n, 4] in px of the drawn view; neighbors still share their edges."""
    across, down = drawn.width / view.width, drawn.height / view.height
    edges = np.rint(np.asarray(boxes, np.float64) * [across, down, across, down])
    return np.clip(edges, 0, [drawn.width, drawn.height] * 2).astype(int)


def _level_map(boxes: np.ndarray, levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return every pixel's level, uint8 [height, width]; the highest where boxes overlap."""
    level_map = np.zeros((size[1], size[0]), dtype=np.uint8)
    for token in np.argsort(levels, kind="stable"):
        if levels[token]:
            left, top, right, bottom = boxes[token]
            level_map[top:bottom, left:right] = levels[token]
    return level_map


def _heated(luminance: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the colors [..., 3] of levels [...] over a gray copy of pixels with this luminance
    [...], 0 to 255."""
    gray = 128 + _GRAY_CONTRAST * (luminance - 128)
    alpha = _HEAT_ALPHA[levels][..., None]
    return (1 - alpha) * gray[..., None] + alpha * _HEAT_RGB[levels]


def _active_region(boxes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return the box [4] of the strongest patch and the active patches connected to it."""
    active = boxes[levels >= max(1, _REGION_SHARE * levels.max())]
    region = np.asarray(boxes[int(levels.argmax())], dtype=np.float64)
    tolerance = 0.01 * (region[2:] - region[:2])
    while True:
        near = (active[:, :2] <= region[2:] + tolerance) & (active[:, 2:] >= region[:2] - tolerance)
        joined = active[near.all(axis=1)]
        grown = np.concatenate([joined[:, :2].min(axis=0), joined[:, 2:].max(axis=0)])
        if (grown == region).all():
            return region
        region = grown


def _window(region: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a square around the region, shifted and cut to lie within the picture."""
    sides = region[2:] - region[:2]
    side = max(float(sides.max()) * (1 + 2 * _MARGIN), _LEAST_WINDOW * min(size))
    window = []
    for axis in (0, 1):
        length = min(max(1, round(side)), size[axis])
        middle = (region[axis] + region[axis + 2]) / 2
        start = min(max(0, round(middle - length / 2)), size[axis] - length)
        window.append((start, start + length))
    (left, right), (top, bottom) = window
    return left, top, right, bottom


def _frame(drawn: Image.Image, box: np.ndarray, thickness: int) -> None:
    """Draw a white and a black line just outside a box, so they cover nothing inside it."""
    left, top, right, bottom = (int(edge) for edge in box)
    if left >= right or top >= bottom:
        return  # The grid is finer than the picture, so this patch has no pixel.
    pen = ImageDraw.Draw(drawn)
    # At the picture's border there is no space outside, so the lines move inside.
    least, most = 2 * thickness, (drawn.width - 2 * thickness, drawn.height - 2 * thickness)
    left, top = max(left, least), max(top, least)
    right, bottom = max(min(right, most[0]), left + 1), max(min(bottom, most[1]), top + 1)
    for distance in range(1, 2 * thickness + 1):
        shade = "white" if distance <= thickness else "black"
        edges = (left - distance, top - distance, right - 1 + distance, bottom - 1 + distance)
        pen.rectangle(edges, outline=shade)


def _with_legend(picture: Image.Image, colors: np.ndarray) -> Image.Image:
    """Return the picture over its legend: the colors [11, 3] of levels 0 to 10, numbered."""
    whole = Image.new("RGB", (picture.width, picture.height + LEGEND), "white")
    whole.paste(picture, (0, 0))
    pen = ImageDraw.Draw(whole)
    font = ImageFont.load_default(13)
    edges = np.rint(np.linspace(0, picture.width, 12)).astype(int)
    for level, (left, right) in enumerate(pairwise(edges.tolist())):
        if left == right:
            continue  # A picture narrower than its legend.
        red, green, blue = np.rint(colors[level]).astype(int).tolist()
        box = (left, picture.height, right - 1, whole.height - 1)
        pen.rectangle(box, fill=(red, green, blue))
        is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
        middle = ((left + right) / 2, picture.height + LEGEND / 2)
        pen.text(middle, str(level), "white" if is_dark else "black", font, anchor="mm")
    return whole


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
