"""Clean text from a provider, once, where it enters: every later reader can encode and store it."""

from __future__ import annotations

import re
from typing import Any

LONGEST_TEXT = 200_000
"""Characters of an answer that are kept. No limit on an answer's tokens allows for more."""
_REASON_LENGTH = 300
_UNUSABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_SHORTEST_KEY = 8
"""A shorter key is a word for a server that needs none, such as "none"."""


def clean(text: str, length: int = LONGEST_TEXT) -> str:
    """Return the text without lone surrogates and control characters, cut to `length`.

    Each is replaced by one other character, so positions in the text stay valid. Keeps tabs and
    line breaks.
    """
    return _UNUSABLE.sub(_REPLACEMENT, text[:length])


def clean_values(value: Any) -> Any:
    """Return parsed JSON with all of its strings cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(name): clean_values(part) for name, part in value.items()}
    if isinstance(value, list):
        return [clean_values(part) for part in value]
    return value


def one_line(text: str, length: int = _REASON_LENGTH) -> str:
    """Return the text on one line of printable characters, cut to the length of a table's reason
    (300)."""
    # A reason is a sentence or two, so the rest of a long body need not be looked at.
    start = text[: 50 * length]
    return " ".join("".join(c if c.isprintable() else " " for c in start).split())[:length]


def mask_key(text: str, key: str) -> str:
    """Return a provider's message with the key masked: some gateways repeat the request's headers.
    Mask before a text is cut, or a part of the key may stay."""
    return text.replace(key, "***") if len(key) >= _SHORTEST_KEY else text
