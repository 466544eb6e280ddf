"""Draws a neuron's activations over a picture: as heat, as light in the dark, or cut out.

Whatever the rendering, a picture fits into `size` x `size` px, so that its price is known before
it is drawn.
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
"""Width (px) of the grey strip between a plain picture and the same picture under its heat."""
LEGEND = 22
"""Height (px) of the legend below a picture."""
LEAST_SIZE = 128
"""The smallest `size`: below it neither legend nor patches could be told apart."""

# "plasma" of matplotlib without its darkest quarter: even steps of it look evenly far apart.
_HEAT = (
    (126, 3, 168), (156, 23, 158), (181, 47, 140), (204, 71, 120), (222, 95, 101),
    (237, 121, 83), (248, 149, 64), (253, 180, 47), (251, 213, 36), (240, 249, 33),
)  # fmt: skip
_HEAT_RGB = np.array([(255, 255, 255), *_HEAT], dtype=np.float32)
_HEAT_ALPHA = np.array([0, *np.linspace(0.2, 0.68, 10)], dtype=np.float32)
_DARKEST = 0.18
_LIGHT = _DARKEST + (1 - _DARKEST) * (np.arange(11, dtype=np.float32) / 10) ** 0.75
"""How much of a patch's light a mask leaves, by level: the power keeps weak patches legible."""
_GREY = (128, 128, 128)
_REGION_SHARE = 0.5
"""A crop is of the patches that are at least this share as active as the strongest."""
_MARGIN = 0.3
"""Room that a crop leaves around them on each side, as a share of their longer side."""
_LEAST_WINDOW = 0.12
"""A crop shows at least this share of the picture's shorter side, so that a place is seen."""


def draw(
    render: Render, view: Image.Image, boxes: np.ndarray, activations: np.ndarray, size: int
) -> Image.Image:
    """The view with the activations of its visual tokens, within `size` x `size` px.

    boxes: float [n_visual, 4], left, top, right, bottom of what each token looks at, in px of the
    view; they may overlap, and the highest activation then shows. activations: float [n_visual],
    0 to 10; they are drawn as the integers that they round to.
    """
    return _RENDERINGS[render](view.convert("RGB"), boxes, to_levels(activations), size)


def draw_plain(view: Image.Image, size: int) -> Image.Image:
    """The view as it is, within `size` x `size` px."""
    return _scaled(view.convert("RGB"), _scale(view, size, size))


def draw_heat(view: Image.Image, boxes: np.ndarray, levels: np.ndarray, size: int) -> Image.Image:
    """The plain view and the same under its heat, over a legend.

    Both are shown because heat changes the colours under it, and colour is among the things that a
    neuron may respond to. They stand side by side, or one above the other where that leaves them
    larger. The strongest patch has a black and white frame.
    """
    beside = _scale(view, (size - GAP) // 2, size - LEGEND)
    above = _scale(view, size, (size - GAP - LEGEND) // 2)
    plain = _scaled(view, max(beside, above))
    scaled = _scaled_boxes(boxes, plain, view)
    shown = _level_map(scaled, levels, plain.size)
    alpha = _HEAT_ALPHA[shown][:, :, None]
    pixels = np.asarray(plain, dtype=np.float32)
    heated = _picture((1 - alpha) * pixels + alpha * _HEAT_RGB[shown])
    if levels.max(initial=0) > 0:
        _frame(heated, scaled[int(levels.argmax())], thickness=1)
    step = (plain.width + GAP, 0) if beside >= above else (0, plain.height + GAP)
    both = Image.new("RGB", (plain.width + step[0], plain.height + step[1]), _GREY)
    both.paste(plain, (0, 0))
    both.paste(heated, step)
    return _with_legend(both, _HEAT_RGB)


def draw_mask(view: Image.Image, boxes: np.ndarray, levels: np.ndarray, size: int) -> Image.Image:
    """The view with each patch as bright as it is active, over a legend."""
    plain = _scaled(view, _scale(view, size, size - LEGEND))
    shown = _level_map(_scaled_boxes(boxes, plain, view), levels, plain.size)
    lit = _picture(np.asarray(plain, dtype=np.float32) * _LIGHT[shown][:, :, None])
    return _with_legend(lit, 255 * np.repeat(_LIGHT[:, None], 3, axis=1))


def draw_crop(view: Image.Image, boxes: np.ndarray, levels: np.ndarray, size: int) -> Image.Image:
    """The most active place cut out and enlarged, in a black and white frame.

    It is the strongest patch with all that are at least half as active and connected to it. A
    silent view is shown whole, without a frame.
    """
    if levels.max(initial=0) == 0:
        return draw_plain(view, size)
    region = _active_region(boxes, levels)
    window = _window(region, view.size)
    cut = view.crop(window)
    scale = _scale(cut, size, size)
    enlarged = _scaled(cut, scale)
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
    # Enlarged smoothly: blocks of pixels would look like patches.
    kernel = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    return view.resize((width, height), kernel, reducing_gap=3.0)


def _scaled_boxes(boxes: np.ndarray, drawn: Image.Image, view: Image.Image) -> np.ndarray:
    """Boxes int [n, 4] in px of the drawn view; neighbours keep sharing their edges."""
    across, down = drawn.width / view.width, drawn.height / view.height
    edges = np.rint(np.asarray(boxes, np.float64) * [across, down, across, down])
    return np.clip(edges, 0, [drawn.width, drawn.height] * 2).astype(int)


def _level_map(boxes: np.ndarray, levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The level of every pixel, uint8 [height, width]; of boxes that overlap the highest."""
    shown = np.zeros((size[1], size[0]), dtype=np.uint8)
    for token in np.argsort(levels, kind="stable"):
        if levels[token]:
            left, top, right, bottom = boxes[token]
            shown[top:bottom, left:right] = levels[token]
    return shown


def _active_region(boxes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom [4] of the strongest patch with those connected to it."""
    active = boxes[levels >= max(1, _REGION_SHARE * levels.max())]
    region = np.asarray(boxes[int(levels.argmax())], dtype=np.float64)
    touching = 0.01 * (region[2:] - region[:2])
    while True:
        near = (active[:, :2] <= region[2:] + touching) & (active[:, 2:] >= region[:2] - touching)
        joined = active[near.all(axis=1)]
        grown = np.concatenate([joined[:, :2].min(axis=0), joined[:, 2:].max(axis=0)])
        if (grown == region).all():
            return region
        region = grown


def _window(region: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square about the region, moved and cut so that it lies within the picture."""
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
    """A white line and a black one around a box, not on it: what is inside is what it is about."""
    left, top, right, bottom = (int(edge) for edge in box)
    if left >= right or top >= bottom:
        return  # The grid is finer than the picture, and this patch has no pixel of its own.
    pen = ImageDraw.Draw(drawn)
    # At the picture's border there is no room outside, so the lines are drawn just within it.
    least, most = 2 * thickness, (drawn.width - 2 * thickness, drawn.height - 2 * thickness)
    left, top = max(left, least), max(top, least)
    right, bottom = max(min(right, most[0]), left + 1), max(min(bottom, most[1]), top + 1)
    for distance in range(1, 2 * thickness + 1):
        shade = "white" if distance <= thickness else "black"
        edges = (left - distance, top - distance, right - 1 + distance, bottom - 1 + distance)
        pen.rectangle(edges, outline=shade)


def _with_legend(picture: Image.Image, colours: np.ndarray) -> Image.Image:
    """The picture over its legend: the colours [11, 3] of 0 to 10, each with its number."""
    whole = Image.new("RGB", (picture.width, picture.height + LEGEND), "white")
    whole.paste(picture, (0, 0))
    pen = ImageDraw.Draw(whole)
    font = ImageFont.load_default(13)
    edges = np.rint(np.linspace(0, picture.width, 12)).astype(int)
    for level, (left, right) in enumerate(pairwise(edges.tolist())):
        red, green, blue = np.rint(colours[level]).astype(int).tolist()
        box = (left, picture.height, right - 1, whole.height - 1)
        pen.rectangle(box, fill=(red, green, blue))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
        middle = ((left + right) / 2, picture.height + LEGEND / 2)
        pen.text(middle, str(level), "white" if dark else "black", font, anchor="mm")
    return whole


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels).astype(np.uint8))
