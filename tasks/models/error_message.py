"""Read what a provider says in an error, in any of the shapes that servers use.

OpenAI, Azure, vLLM, Ollama, LM Studio, OpenRouter, LiteLLM, Gemini, FastAPI and AWS put their words
into different fields of different nesting; proxies answer in HTML or plain text.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from neuron_atlas.tasks.models.clean_text import one_line

_MESSAGE_FIELDS = ("message", "msg", "detail", "error_description", "description", "title")
_CODE_FIELDS = ("code", "type", "status", "error_type", "errortype", "__type", "reason", "param")
_NESTED_FIELDS = (
    *("error", "errors", "innererror", "inner_error", "metadata", "raw", "details"),
    *_MESSAGE_FIELDS,
)
_NUMBER_FIELDS = ("code", "status", "statuscode", "status_code", "error_code", "http_status")
_DEEPEST = 8
_LENGTH = 2000
"""Characters of the words that are kept to classify by; a reason shows the first 300."""
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_NO_TEXT = re.compile(
    r"<(script|style|head)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL
)
_WAIT = re.compile(
    r"(?:try again|retry|wait|available|resets?)(?: \w+){0,3}? (?:in|after|for) "
    r"(?:(\d+)\s*h(?:ours?)?\s*)?(?:(\d+)\s*m(?:in(?:utes?)?)?(?!s)\s*)?"
    r"(?:(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|sec(?:onds?)?)\b)?",
    re.IGNORECASE,
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)s")


@dataclass(frozen=True)
class ErrorMessage:
    """What a provider says in an error.

    text: its words on one line; empty if there are none. codes: names of the error in lower case,
    such as rate_limit_exceeded, and the name of the rejected field. number: an HTTP status that the
    body names; None if it names none. wait_s: the wait that the body requests; None if none.
    """

    text: str = ""
    codes: frozenset[str] = frozenset()
    number: int | None = None
    wait_s: float | None = None

    @property
    def searched(self) -> str:
        """Codes and words in lower case, to search."""
        return " ".join([*sorted(self.codes), self.text.lower()])


def read_error(body: Any) -> ErrorMessage:
    """Read the error in a body: its text, or the parsed JSON."""
    if isinstance(body, str):
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):
            return _from_plain(body)
        body = parsed if isinstance(parsed, dict | list) else str(parsed)
    texts: list[str] = []
    codes: set[str] = set()
    numbers: list[int] = []
    waits: list[float] = []
    for name, value in _fields(body, "", 0):
        if name in _NUMBER_FIELDS and (number := _http_status(value)) is not None:
            numbers.append(number)
        elif name in _CODE_FIELDS and isinstance(value, str):
            codes.add(value.strip().lower())
        elif name == "retrydelay" and isinstance(value, str):
            waits += [float(found[1]) for found in [_DURATION.fullmatch(value.strip())] if found]
        elif isinstance(value, str):
            text = one_line(_plain(value), _LENGTH)
            if not any(text in known for known in texts):
                texts.append(text)
    text = one_line("; ".join(texts), _LENGTH)
    wait_s = waits[0] if waits else _wait_in(text)
    codes.discard("error")
    return ErrorMessage(text, frozenset(codes - {""}), next(iter(numbers), None), wait_s)


def has_error(body: Any) -> bool:
    """Return whether the body of a reply with status 200 is an error."""
    if isinstance(body, list):
        return any(map(has_error, body))
    if not isinstance(body, Mapping):
        return False
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, Mapping):
        is_broken = first.get("finish_reason") == "error" or not first.get("message")
        return bool(first.get("error")) and is_broken
    named = ("error", "errors", "detail", "message", "error_message", "code", "status")
    return not choices and any(body.get(name) for name in named)


def _fields(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield name (lower case) and value of the fields that describe an error, outermost first."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for part in value[:_DEEPEST]:
            yield from _fields(part, name, depth + 1)
    elif isinstance(value, Mapping):
        lowered = {str(key).lower(): part for key, part in value.items()}
        if isinstance(choices := lowered.get("choices"), list) and choices:
            yield from _fields(choices[0], "choice", depth + 1)
            return
        for key, part in lowered.items():
            if not isinstance(part, dict | list):
                is_read = key in (*_CODE_FIELDS, *_NUMBER_FIELDS, "retrydelay")
                if is_read:
                    yield key, part
        # FastAPI names the rejected field in `loc`.
        if isinstance(where := lowered.get("loc"), list):
            yield "message", ".".join(map(str, where))
        for key in dict.fromkeys((*_NESTED_FIELDS, "failed_generation")):
            if key in lowered and not (depth == 0 and key == "title" and "detail" in lowered):
                yield from _fields(lowered[key], key, depth + 1)
    elif isinstance(value, str) and name:
        nested = _parsed(value)
        if nested is None:
            yield name, value
        else:  # A gateway quotes the body of the provider behind it.
            yield from _fields(nested, name, depth + 1)
    elif value is not None and name and not isinstance(value, bool):
        yield name, value


def _parsed(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _from_plain(body: str) -> ErrorMessage:
    text = one_line(_plain(body), _LENGTH)
    return ErrorMessage(text, wait_s=_wait_in(text))


def _plain(text: str) -> str:
    """Return a text without the tags of HTML; of a page, the title first."""
    head = text[: 50 * _LENGTH]
    if "<" not in head or not re.search(r"<(!doctype|html|head|body|title|h1|p)\b", head, re.I):
        return head
    title = _TITLE.search(head)
    words = [title[1]] if title else []
    rest = html.unescape(_NO_TEXT.sub(" ", head))
    if not title or one_line(rest) != one_line(title[1]):
        words.append(rest)
    return ": ".join(one for one in map(str.strip, map(html.unescape, words)) if one)


def _http_status(value: Any) -> int | None:
    """Return an HTTP status of 4xx or 5xx, which may be written as text; None for anything else."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value[:9])
    is_status = isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600
    return value if is_status else None


def _wait_in(text: str) -> float | None:
    """Return the seconds in a sentence such as "Please try again in 1m6.2s"; None without one."""
    found = _WAIT.search(text)
    if found is None or not any(found.group(1, 2, 3)):
        return None
    hours, minutes, seconds, unit = found.groups()
    scale = 1e-3 if unit and unit.lower().startswith("m") else 1.0
    return 3600.0 * int(hours or 0) + 60.0 * int(minutes or 0) + scale * float(seconds or 0)
