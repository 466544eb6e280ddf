"""Answers a question about a neuron by looking at what was sent, and at nothing else.

It knows what the system prompt says: a picture is shown plain on the left and with its heat on the
right, and an active token is written {{token}}(n).
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tests.loopback.protocol import open_picture

COLOURS = {
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
STEP = 3
LEVELS = np.linspace(0, 1, 11)
MARK = re.compile(r"\{\{((?:\\.|[^\\{}])*)\}\}\((\d+)\)")


@dataclass(frozen=True)
class Finding:
    """What stands out, and in which share of the places where it could."""

    what: str
    share: float


def look(body: dict[str, Any]) -> dict[str, Any]:
    """The answer to the last question with samples in it, by the names of the asked fields."""
    pictures, text = _samples(body)
    colour, word = _colour(pictures), _word(text)
    found = [finding for finding in (colour, word) if finding]
    if colour and word:
        said = f'{colour.what} regions of a picture and to the word "{word.what}" in a text'
    elif colour:
        said = f"{colour.what} regions of a picture"
    elif word:
        said = f'the word "{word.what}" in a text'
    else:
        said = "nothing that stands out"
    return {
        "explanation": f"The neuron responds to {said}.",
        "evidence_for": ", ".join(f"{f.what}: {f.share:.0%}" for f in found),
        "evidence_against": "",
        "confidence": round(min((f.share for f in found), default=0.0), 2),
    }


def heat(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The plain half, and how hot each of its pixels is (0 to 1), at every third pixel."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    width = (pixels.shape[1] - GAP) // 2
    plain = pixels[::STEP, :width:STEP]
    warmed = pixels[::STEP, width + GAP :: STEP][:, : plain.shape[1]]
    level = LEVELS[:, None, None, None].astype(np.float32)
    warm = (1 - level) * np.array([255, 214, 0]) + level * np.array([255, 32, 0])
    guesses = (1 - 0.6 * level) * plain + 0.6 * level * warm
    hot = LEVELS[np.abs(guesses - warmed).sum(axis=-1).argmin(axis=0)]
    return plain, _smooth(hot)


def marked_tokens(text: str) -> list[tuple[str, int]]:
    """Every marked token, without its escapes, and its number."""
    return [(re.sub(r"\\(.)", r"\1", found[1]), int(found[2])) for found in MARK.finditer(text)]


def _samples(body: dict[str, Any]) -> tuple[list[Image.Image], str]:
    for message in reversed(body["messages"]):
        if message["role"] == "user" and isinstance(message["content"], list):
            parts = message["content"]
            urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
            texts = [part["text"] for part in parts if part["type"] == "text"]
            return [open_picture(url) for url in urls], "\n".join(texts)
    return [], ""


def _colour(pictures: list[Image.Image]) -> Finding | None:
    names = list(COLOURS)
    palette = np.array(list(COLOURS.values()), dtype=np.float32)
    seen: dict[str, int] = defaultdict(int)
    for picture in pictures:
        plain, hot = heat(picture)
        if hot.max(initial=0) < 0.1:
            continue
        warmest = plain[hot >= 0.85 * hot.max()]
        nearest = ((warmest[:, None] - palette) ** 2).sum(axis=-1).argmin(axis=1)
        seen[names[np.bincount(nearest).argmax()]] += 1
    if not seen:
        return None
    best = max(seen, key=lambda name: seen[name])
    return Finding(best, seen[best] / sum(seen.values()))


def _word(text: str) -> Finding | None:
    total: dict[str, int] = defaultdict(int)
    marked: dict[str, int] = defaultdict(int)
    for token, level in marked_tokens(text):
        if word := token.strip().lower():
            total[word] += level
            marked[word] += 1
    if not total:
        return None
    silent = MARK.sub(" ", text).lower()
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
