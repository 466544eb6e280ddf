"""Finds the JSON in what a model said, which may be in a fence, within prose, or a little wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_COMMA = re.compile(r",(\s*[}\]])")


@dataclass(frozen=True)
class Found:
    """An object that was found. start, end: where it stands in what was said; None where commas had
    to be taken out of it first."""

    value: Any
    start: int | None = None
    end: int | None = None


def find_objects(
    said: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> list[Found]:
    """All JSON objects in a text, those within others too; pairs: what is made of their fields
    (None: a dict). Commas before a closing bracket and line breaks within strings are borne."""
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=pairs)
    found = []
    for opened in re.finditer(r"\{", said):
        start = opened.start()
        try:
            value, end = decoder.raw_decode(said, start)
            found.append(Found(value, start, end))
        except (ValueError, RecursionError):
            try:
                value, _ = decoder.raw_decode(_COMMA.sub(r"\1", said[start:]))
                found.append(Found(value))
            except (ValueError, RecursionError):
                continue
    return found
