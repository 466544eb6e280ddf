"""Answers a question about a neuron by looking at what was sent, and at nothing else.

It knows what the system prompt says of how samples are shown: in a text an active token is written
{{token}}(n), with the strongest listed once more below; a picture is shown plain and as a gray copy
under its heat, or darkened where the neuron is silent, or cut out with a frame around what is
active. Contrasts it does not look at.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tests.loopback.protocol import open_picture

COLORS = {
    "red": (214, 36, 36),
    "orange": (255, 140, 0),
    "yellow": (250, 225, 40),
    "green": (40, 150, 60),
    "blue": (40, 70, 215),
    "purple": (135, 45, 170),
    "white": (244, 244, 244),
    "black": (16, 16, 16),
    "gray": (128, 128, 128),
    "pink": (246, 176, 196),
    "brown": (122, 78, 44),
    "cyan": (120, 214, 222),
}
GAP = 8
STRIP = np.array([255, 255, 255, 0, 0, 255, 255, 255])
LEGEND = 22
STEP = 3
HEAT = (
    (126, 3, 168), (156, 23, 158), (181, 47, 140), (204, 71, 120), (222, 95, 101),
    (237, 121, 83), (248, 149, 64), (253, 180, 47), (251, 213, 36), (240, 249, 33),
)  # fmt: skip
ALPHA = 0.75
DARKEST = 0.18
BRIGHT = 75
"""Of 255: nothing that is darkened reaches it, for a mask leaves it a fifth of its light."""
LEAST_GAIN = 0.05
NOTHING = np.empty((0, 3), dtype=np.float32)
SAMPLE = re.compile(r"<(sample|contrast)\b")
LISTED = re.compile(r"^Strongest tokens: .*$", re.MULTILINE)
MARK = re.compile(r"\{\{((?:\\.|[^\\{}])*)\}\}\((\d+)\)")


Parts = tuple[np.ndarray, np.ndarray]
"""Pixels [n, 3] of a picture where the neuron is active, and where it is silent."""


@dataclass(frozen=True)
class Finding:
    """What stands out, and in which share of the places where it could."""

    what: str
    share: float


def look(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to the last question with samples in it, by the names of the asked fields."""
    told, pictures, text = _samples(body)
    color, word = _color(pictures, _way_of_showing(told)), _word(text)
    found = [finding for finding in (color, word) if finding]
    if color and word:
        said = f'{color.what} regions of a picture and to the word "{word.what}" in a text'
    elif color:
        said = f"{color.what} regions of a picture"
    elif word:
        said = f'the word "{word.what}" in a text'
    else:
        said = "nothing that stands out"
    return {
        "evidence_for": ", ".join(f"{f.what}: {f.share:.0%}" for f in found),
        "evidence_against": "",
        "explanation": f"The neuron responds to {said}.",
        "confidence": round(min((f.share for f in found), default=0.0), 2),
    }


def heat(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The plain view, and how hot each of its pixels is (0 to 1), at every third pixel."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)[:-LEGEND]
    plain, warmed = _halves(pixels)
    plain, warmed = plain[::STEP, ::STEP], warmed[::STEP, ::STEP]
    gray = _gray_copy(plain)
    guesses = [gray]
    for color in HEAT:
        guesses.append((1 - ALPHA) * gray + ALPHA * np.array(color))
    hot = np.abs(np.stack(guesses) - warmed).sum(axis=-1).argmin(axis=0) / 10
    return plain, _smooth(hot)


def _halves(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plain view and its copy: side by side or one above the other, by the strip between them,
    white with a black line."""
    height, width = pixels.shape[:2]
    across, down = (width - GAP) // 2, (height - GAP) // 2
    strips = pixels[:, across : across + GAP], pixels[down : down + GAP].swapaxes(0, 1)
    beside, above = (float(np.abs(strip.mean(axis=(0, 2)) - STRIP).mean()) for strip in strips)
    if beside <= above:
        return pixels[:, :across], pixels[:, across + GAP :][:, :across]
    return pixels[:down], pixels[down + GAP :][:down]


def _gray_copy(plain: np.ndarray) -> np.ndarray:
    gray = 128 + (plain @ np.array([0.299, 0.587, 0.114], np.float32) - 128) / 2
    return np.repeat(gray[..., None], 3, axis=-1)


def under_heat(picture: Image.Image) -> Parts:
    """What is at least half as hot as the hottest, and what is cold."""
    plain, hot = heat(picture)
    if hot.max(initial=0) < 0.1:
        return NOTHING, plain.reshape(-1, 3)
    return plain[hot >= 0.5 * hot.max()], plain[hot < 0.05]


def lit(picture: Image.Image) -> Parts:
    """What is not darkened, and what is, as it would be in full light."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)[:-LEGEND:STEP, ::STEP]
    is_lit = pixels.max(axis=-1) >= BRIGHT
    return pixels[is_lit], np.clip(pixels[~is_lit] / DARKEST, 0, 255)


def framed(picture: Image.Image) -> Parts:
    """What is within the black and white frame, and what is outside; all is where there is none."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    white, black = (pixels > 190).all(axis=-1), (pixels < 65).all(axis=-1)
    edges = []
    for axis in (0, 1):
        # A pixel of white before one of black two further on, or after it.
        before = white & np.roll(black, 2, axis=axis)
        after = white & np.roll(black, -2, axis=axis)
        first, last = (found.sum(axis=1 - axis) for found in (before, after))
        edges.append((int(first.argmax()), int(last.argmax()), min(first.max(), last.max())))
    (top, bottom, rows), (left, right, columns) = edges
    if min(rows, columns) < 8 or bottom - top < 8 or right - left < 8:
        return NOTHING, pixels.reshape(-1, 3)[::STEP]
    outside = np.ones(white.shape, dtype=bool)
    outside[top - 6 : bottom + 6, left - 6 : right + 6] = False
    within = pixels[top + 3 : bottom - 3, left + 3 : right - 3].reshape(-1, 3)
    return within[::STEP], pixels[outside][::STEP]


def marked_tokens(text: str) -> list[tuple[str, int]]:
    """Every marked token, without its escapes, and its number."""
    return [(re.sub(r"\\(.)", r"\1", found[1]), int(found[2])) for found in MARK.finditer(text)]


def _way_of_showing(told: str) -> Callable[[Image.Image], Parts]:
    if "darkened where the neuron is silent" in told:
        return lit
    if "cut out and enlarged" in told:
        return framed
    return under_heat


def _samples(body: dict[str, Any]) -> tuple[str, list[Image.Image], str]:
    """What the system prompt tells, and the samples of the last question that has some."""
    told = "".join(m["content"] for m in body["messages"] if m["role"] == "system")
    for message in reversed(body["messages"]):
        if message["role"] == "user" and isinstance(message["content"], list):
            pictures, texts, within = [], [], "sample"
            for part in message["content"]:
                if opened := SAMPLE.match(part.get("text", "")):
                    within = opened[1]
                if within == "sample" and part["type"] == "image_url":
                    pictures.append(open_picture(part["image_url"]["url"]))
                elif within == "sample":
                    texts.append(part["text"])
            return told, pictures, "\n".join(texts)
    return told, [], ""


def _color(pictures: list[Image.Image], look_at: Callable[[Image.Image], Parts]) -> Finding | None:
    """The color that the active places share and the silent places lack."""
    gains = []
    for picture in pictures:
        active, silent = look_at(picture)
        if len(active):
            gains.append(_shares(active) - _shares(silent))
    if not gains:
        return None
    best = int(np.sum(gains, axis=0).argmax())
    share = float(np.mean([gain[best] > LEAST_GAIN for gain in gains]))
    return Finding(list(COLORS)[best], share) if share else None


def _shares(pixels: np.ndarray) -> np.ndarray:
    """The share of each color among pixels [n, 3], by the nearest of COLOURS."""
    palette = np.array(list(COLORS.values()), dtype=np.float32)
    nearest = ((pixels[:, None] - palette) ** 2).sum(axis=-1).argmin(axis=1)
    return np.bincount(nearest, minlength=len(palette)) / max(len(pixels), 1)


def _word(text: str) -> Finding | None:
    total: dict[str, int] = defaultdict(int)
    marked: dict[str, int] = defaultdict(int)
    for token, level in marked_tokens(text):
        if word := token.strip().lower():
            total[word] += level
            marked[word] += 1
    if not total:
        return None
    silent = MARK.sub(" ", LISTED.sub("", text)).lower()
    times = {
        word: marked[word] + len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", silent))
        for word in total
    }
    best = max(total, key=lambda word: (total[word] / times[word], marked[word]))
    return Finding(best, marked[best] / times[best])


def _smooth(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, 1, mode="edge")
    height, width = values.shape
    shifts = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.mean(shifts, axis=0)
