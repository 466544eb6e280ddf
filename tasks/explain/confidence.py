"""Read how confident an explainer is: a number, a percentage, or words."""

from __future__ import annotations

import re
from typing import Any

from neuron_atlas.tasks.models.dialogue import MalformedAnswerError

_WORDS = {
    "none": 0.0,
    "very low": 0.1,
    "low": 0.25,
    "somewhat low": 0.35,
    "medium": 0.5,
    "moderate": 0.5,
    "average": 0.5,
    "fair": 0.5,
    "somewhat high": 0.65,
    "fairly high": 0.7,
    "quite high": 0.75,
    "high": 0.8,
    "strong": 0.8,
    "very high": 0.95,
    "very strong": 0.95,
    "extremely high": 0.98,
    "certain": 1.0,
    "absolute": 1.0,
}
_BETWEEN = re.compile(r"\s*(?:-|/|\bto\b|\bor\b)\s*")
_ONE_NUMBER = re.compile(r"\D*?(\d*\.\d+|\d+(?= ?%)|[01](?![\d.]))( ?%)?\D*")
_OF = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/|out of|of)\s*(\d+(?:\.\d+)?)")


def read_confidence(value: Any) -> float | None:
    """Return a confidence from 0 to 1; None if there is none.

    Accepts numbers as text, percentages ("80 %"), fractions ("8/10") and words ("very high",
    "medium-high"). Raises MalformedAnswerError if the meaning is not clear.
    """
    if value is None or value == "":
        return None
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise MalformedAnswerError('the field "confidence" is not a number from 0 to 1')
    return float(value)


def _from_text(text: str) -> float | None:
    text = re.sub(r"[\s_]+", " ", text.strip().strip(".*").lower())
    text = re.sub(r"^(?:confidence|level)\W+|[ -]*\bconfiden(?:ce|t)$", "", text).strip()
    is_percent = text.endswith("%")
    try:
        return float(text.removesuffix("%")) / (100 if is_percent else 1)
    except ValueError:
        pass
    if (found := _OF.fullmatch(text)) and float(found[2]):
        return float(found[1]) / float(found[2])
    if found := _ONE_NUMBER.fullmatch(text):  # Such as "about 0.8" and "80% (high)".
        return float(found[1]) / (100 if found[2] else 1)
    if text in _WORDS:
        return _WORDS[text]
    if text.replace("-", " ") in _WORDS:
        return _WORDS[text.replace("-", " ")]
    parts = [_WORDS.get(part) for part in _BETWEEN.split(text)]
    known = [part for part in parts if part is not None]
    return sum(known) / len(known) if len(parts) == len(known) == 2 else None
