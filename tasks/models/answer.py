"""Outcome of one request: read it from a reply, and convert it to and from JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from neuron_atlas.tasks.models.failures import Failure
from neuron_atlas.tasks.models.request import Extract

_REASON_LENGTH = 300


@dataclass(frozen=True)
class Answer:
    """Outcome of one request.

    status: ok, refused, malformed, truncated, filtered, rate_limited, timed_out, budget or failed;
    in batch mode also pending, which is never written to a table. text: the model's text, which may
    be cut off. model: the provider's name for the model that answered. attempts: requests sent.
    tokens_in, tokens_out: as billed. usd: their price, None without one. seconds: from the first
    attempt to the outcome, waits included. kept: result of the request's `extract`, as JSON.
    replayed: the answer was stored; its other fields describe the call that was paid.
    """

    status: str
    text: str = ""
    reason: str = ""
    model: str = ""
    attempts: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0
    kept: Any = None
    replayed: bool = field(default=False, compare=False)


def read_completion(text: str, extract: Extract | None = None) -> Answer | Failure:
    """Read the body of a reply with status 200 as an answer; extract: see `Request`."""
    try:
        return read_message(json.loads(text), extract)
    except ValueError as error:
        reason = f"the provider's reply is no chat completion: {type(error).__name__}"
        return Failure("malformed", reason, billed=True)


def read_message(body: Any, extract: Extract | None = None) -> Answer | Failure:
    """Read a parsed chat completion as an answer; extract: see `Request`."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        finish = choice.get("finish_reason")
        usage = body.get("usage") or {}
        answer = Answer(
            "ok",
            text=content if isinstance(content, str) else "",
            model=str(body.get("model") or ""),
            tokens_in=int(usage.get("prompt_tokens") or 0),
            tokens_out=int(usage.get("completion_tokens") or 0),
            kept=None if extract is None else extract(body),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"the provider's reply is no chat completion: {type(error).__name__}"
        return Failure("malformed", reason, billed=True)
    if refusal:
        return replace(answer, status="refused", reason=one_line(str(refusal)))
    if finish == "content_filter":
        return replace(answer, status="filtered", reason="cut off by the provider's filter")
    if finish == "length":
        return replace(answer, status="truncated", reason="cut off at the limit on its length")
    if not answer.text.strip():
        return replace(answer, status="malformed", reason="the answer is empty")
    return answer


def one_line(text: str) -> str:
    """Return the text on one line, cut to 300 characters, the length of a reason in a table."""
    return " ".join(text.split())[:_REASON_LENGTH]


def to_json(answer: Answer) -> str:
    """Return the answer as the account stores it."""
    stored = asdict(answer)
    del stored["replayed"]
    if answer.kept is None:  # Most answers have none; older accounts lack the field.
        del stored["kept"]
    return json.dumps(stored, sort_keys=True)


def from_json(stored: str) -> Answer:
    """Read a stored answer and mark it as replayed. Ignores fields it does not know."""
    known = {part.name for part in fields(Answer)}
    read = {name: value for name, value in json.loads(stored).items() if name in known}
    return Answer(**{"usd": None, **read}, replayed=True)
