"""Draws a neuron's activations where it can be seen what they are on: on patches, and on words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

GAP = 8
"""Width (px) of the grey strip between a plain picture and the same picture under its heat."""

_STRONGEST_ALPHA = 0.6
_WEAK_RGB = (255.0, 214.0, 0.0)
_STRONG_RGB = (255.0, 32.0, 0.0)
_GAP_RGB = (128, 128, 128)


def draw_heat(view: Image.Image, activations: np.ndarray, size: int) -> Image.Image:
    """The view with its patches warmed by how active they are, `size` px on its longer side.

    `activations` is float32 [rows, columns], 0 to 10, over the whole view (`heat_over`). The
    overlay goes from nothing at 0 through faint yellow to red at 10, and lets the view show
    through. The strongest patch has a black and white frame.
    """
    picture = fit(view, size)
    active = np.clip(np.nan_to_num(activations), 0, 10).astype(np.float32) / 10
    share = active[:, :, None]
    warm = (1 - share) * np.array(_WEAK_RGB, np.float32) + share * np.array(_STRONG_RGB, np.float32)
    drawn = Image.composite(
        _over(picture, warm), picture, _over(picture, 255 * _STRONGEST_ALPHA * active)
    )
    if active.max(initial=0) > 0:
        _frame(drawn, active)
    return drawn


def draw_beside(view: Image.Image, activations: np.ndarray, size: int) -> Image.Image:
    """The plain view and, right of a grey strip, the same under its heat; see `draw_heat`.

    Side by side because heat changes the colours under it, and colour is among the things that a
    neuron may respond to. Each half is `size` px on its longer side.
    """
    plain = fit(view, size)
    both = Image.new("RGB", (2 * plain.width + GAP, plain.height), _GAP_RGB)
    both.paste(plain, (0, 0))
    both.paste(draw_heat(plain, activations, size), (plain.width + GAP, 0))
    return both


def fit(view: Image.Image, size: int) -> Image.Image:
    """The view in RGB, scaled so that its longer side is `size` px."""
    scale = size / max(view.size)
    width, height = (max(1, round(side * scale)) for side in view.size)
    if view.size == (width, height):
        return view.convert("RGB")
    return view.convert("RGB").resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def mark_tokens(tokens: Sequence[str], activations: np.ndarray) -> str:
    """The text with each active token as `{{token}}(7)`; activations [tokens], 0 to 10.

    The number is the activation rounded to an integer; tokens that round to 0 stay as they are, so
    that the text can still be read as text. Text and tokens are escaped (`escape`), so nothing in
    them can pass for a mark, and the marks can be read back.
    """
    if len(tokens) != len(activations):
        raise ValueError(f"{len(tokens)} tokens with {len(activations)} activations")
    levels = np.rint(np.clip(np.nan_to_num(activations), 0, 10)).astype(int)
    return "".join(
        f"{{{{{escape(token)}}}}}({level})" if level else escape(token)
        for token, level in zip(tokens, levels, strict=True)
    )


def escape(text: str) -> str:
    r"""One line of `text`, with nothing in it that could be taken for a mark or a tag.

    Braces, angle brackets and backslashes get a backslash before them; what cannot be printed
    becomes `\n`, `\t`, or its code point as in Python (`\x07`, `\u202e`).
    """
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character in "\\{}<>":
        return f"\\{character}"
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _over(picture: Image.Image, patches: np.ndarray) -> Image.Image:
    """One value (0 to 255) a patch, as an image of the picture's size with hard edges."""
    small = Image.fromarray(np.rint(patches).astype(np.uint8))
    return small.resize(picture.size, Image.Resampling.NEAREST)


def _frame(drawn: Image.Image, active: np.ndarray) -> None:
    row, column = np.unravel_index(int(active.argmax()), active.shape)
    strongest = np.zeros(active.shape, dtype=np.uint8)
    strongest[row, column] = 255
    patch = _over(drawn, strongest).getbbox()
    if patch is None:
        return  # The grid is finer than the picture, and this patch has no pixel of its own.
    left, top, right, bottom = patch
    # Around the patch, not on it: what is inside is what it is about.
    for distance, shade in ((1, "white"), (2, "black")):
        box = (left - distance, top - distance, right - 1 + distance, bottom - 1 + distance)
        ImageDraw.Draw(drawn).rectangle(box, outline=shade)
