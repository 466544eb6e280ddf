"""Find JSON objects in a model's answer: in a code fence, within prose, or slightly malformed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_COMMA = re.compile(r",(\s*[}\]])")
_MOST_BRACES = 20_000
"""Opening braces to try. An answer has a few; a broken model may write nothing else."""


@dataclass(frozen=True)
class JsonObject:
    """A JSON object in a text. start, end: its character range."""

    value: Any
    start: int
    end: int


def find_objects(
    text: str,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
    part: tuple[int, int] | None = None,
) -> list[JsonObject]:
    """Return all JSON objects in a text, nested ones too. Accepts commas before a closing bracket
    and line breaks within strings. pairs: makes an object from its fields; None makes a dict. part:
    start and end of the text to search; None for all."""
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=pairs)
    start, end = part or (0, len(text))
    searched = text[:end]
    repaired = _COMMA.sub(r" \1", searched)  # As long as before, so that positions stay the same.
    found: list[JsonObject] = []
    for number, opened in enumerate(re.compile(r"\{").finditer(searched, start)):
        if number == _MOST_BRACES:
            break
        for form in (searched, repaired):
            try:
                value, stop = decoder.raw_decode(form, opened.start())
            except RecursionError:
                return found  # Nested too deeply for an answer.
            except ValueError:
                continue
            found.append(JsonObject(value, opened.start(), stop))
            break
    return found


def choose_last(
    objects: Sequence[JsonObject], is_wanted: Callable[[JsonObject], bool]
) -> JsonObject | None:
    """Return the last wanted object that is not part of another wanted one; else the last object
    that is not part of another; None without objects."""
    for candidates in ([one for one in objects if is_wanted(one)], objects):
        outer: JsonObject | None = None
        for one in candidates:  # In the order of their starts.
            if outer is None or one.start >= outer.end:
                outer = one
        if outer is not None:
            return outer
    return None
