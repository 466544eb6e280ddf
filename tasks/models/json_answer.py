"""Find JSON objects in a model's answer: in a code fence, within prose, or slightly malformed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_COMMA = re.compile(r",(\s*[}\]])")


@dataclass(frozen=True)
class JsonObject:
    """A JSON object in a text. start, end: its character range; None if commas had to be removed to
    parse it."""

    value: Any
    start: int | None = None
    end: int | None = None


def find_objects(
    text: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> list[JsonObject]:
    """Return all JSON objects in a text, nested ones too. Accepts commas before a closing bracket
    and line breaks within strings. pairs: makes an object from its fields; None makes a dict."""
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=pairs)
    found = []
    for opened in re.finditer(r"\{", text):
        start = opened.start()
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(JsonObject(value, start, end))
        except (ValueError, RecursionError):
            try:
                value, _ = decoder.raw_decode(_COMMA.sub(r"\1", text[start:]))
                found.append(JsonObject(value))
            except (ValueError, RecursionError):
                continue
    return found
