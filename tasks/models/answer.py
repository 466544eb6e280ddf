"""Outcome of one request: read it from a reply, and convert it to and from JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from neuron_atlas.tasks.models.clean_text import clean, clean_values, one_line
from neuron_atlas.tasks.models.error_message import read_error
from neuron_atlas.tasks.models.failures import Failure
from neuron_atlas.tasks.models.reasoning import is_only_reasoning
from neuron_atlas.tasks.models.request import Extract
from neuron_atlas.tasks.models.usage import is_plausible, read_usage

NO_COMPLETION = "the provider's reply is no chat completion"
"""Start of the reason of a reply that holds no answer. The next reply may be one."""
REASONING_TOO_LONG = "cut off at the limit on its length, which its reasoning used up"
_MODEL_LENGTH = 200
_TEXT_PARTS = ("text", "output_text")
_REASONING_PARTS = ("thinking", "reasoning")
_REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
_FILTERED = ("content_filter", "safety", "prohibited_content", "recitation", "blocklist")
_TOO_LONG = ("length", "max_tokens", "max_output_tokens")
"""Reasons why an answer ended, in the words of OpenAI and of gateways to other providers."""
_NOT_STORED = ("replayed", "omitted", "usage_note")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Answer:
    """Outcome of one request.

    status: ok, refused, malformed, truncated, filtered, rate_limited, timed_out, budget or failed;
    in batch mode also pending, which is never written to a table. text: the model's text, which may
    be cut off. model: the provider's name for the model that answered. attempts: requests sent.
    tokens_in, tokens_out: as billed. usd: their price, None without one. seconds: from the first
    attempt to the outcome, waits included. kept: result of the request's `extract`, as JSON.
    replayed: the answer was stored; its other fields describe the call that was paid. omitted:
    fields that the request left out, because the model's server refuses them. usage_note: what is
    wrong with the tokens that the reply states.
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
    omitted: str = ""
    usage_note: str = field(default="", compare=False)


def parse_reply(text: str) -> Any:
    """Parse the body of a reply, and clean its strings. Raises ValueError if it is not JSON, or
    nested too deeply."""
    try:
        parsed = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    # Only an escape can bring a lone surrogate into decoded text, and walking a reply takes time.
    return clean_values(parsed) if _SURROGATE.search(text) else parsed


def read_completion(text: str, extract: Extract | None = None) -> Answer | Failure:
    """Read the body of a reply with status 200 as an answer; extract: see `Request`."""
    try:
        return read_message(parse_reply(text), extract)
    except ValueError:
        return no_completion(text)


def read_message(body: Any, extract: Extract | None = None) -> Answer | Failure:
    """Read a parsed chat completion as an answer; extract: see `Request`.

    The text parts of an answer are joined. Reasoning is not part of the text, where the server
    separates it. Tokens are 0 if the reply does not state them, or not plausibly; `usage_note` then
    quotes it.
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text, refusal = join_parts(message.get("content"))
        refusal = refusal or message.get("refusal")
        finish = str(choice.get("finish_reason") or "").lower()
        kept = None if extract is None else extract(body)
        tokens_in, tokens_out, usage_note = read_usage(body.get("usage"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return no_completion(body)
    answer = Answer(
        "ok",
        text=clean(text),
        model=one_line(str(body.get("model") or ""), _MODEL_LENGTH),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        kept=kept,
        usage_note=usage_note,
    )
    if refusal:
        return replace(answer, status="refused", reason=one_line(str(refusal)))
    if finish in _FILTERED:
        return replace(answer, status="filtered", reason="cut off by the provider's filter")
    if finish in _TOO_LONG:
        is_reasoning = is_only_reasoning(text) or (not text.strip() and _has_reasoning(body))
        reason = REASONING_TOO_LONG if is_reasoning else "cut off at the limit on its length"
        return replace(answer, status="truncated", reason=reason)
    if not answer.text.strip():
        only = ": the reply holds nothing but reasoning" if _has_reasoning(body) else ""
        return replace(answer, status="malformed", reason=f"the answer is empty{only}")
    return answer


def no_completion(body: Any) -> Failure:
    """Return the failure of a reply with status 200 that holds no message, with what it says. body:
    its text, or the parsed JSON."""
    said = read_error(body).text or "it has no message"
    return Failure("malformed", one_line(f"{NO_COMPLETION}: {said}"), billed=True)


def join_parts(content: Any) -> tuple[str, str]:
    """Return the text of a message's content, and its refusal.

    The content is text, or a list of parts: text, refusals, and parts that are not read, such as
    reasoning.
    """
    texts, refusals = [], []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and not {"type", "text"}.intersection(part):
            texts.append(json.dumps(part))  # The object that the text should hold.
        elif isinstance(part, Mapping) and part.get("type", "text") in _TEXT_PARTS:
            text = part.get("text")
            text = text.get("value") if isinstance(text, Mapping) else text
            texts.append(text if isinstance(text, str) else "")
        elif isinstance(part, Mapping) and part.get("type") == "refusal":
            refusals.append(str(part.get("refusal") or ""))
    return "".join(texts), " ".join(refusals)


def _has_reasoning(body: Mapping[str, Any]) -> bool:
    message, usage = body["choices"][0]["message"], body.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, Mapping) else None
    parts = message.get("content")
    kinds = [one.get("type") for one in parts or () if isinstance(one, Mapping)]
    return (
        any(message.get(name) for name in _REASONING_FIELDS)
        or (isinstance(details, Mapping) and bool(details.get("reasoning_tokens")))
        or any(kind in _REASONING_PARTS for kind in kinds)
    )


def to_json(answer: Answer) -> str:
    """Return the answer as the account stores it."""
    stored = asdict(answer)
    for name in _NOT_STORED:
        del stored[name]
    if answer.kept is None:  # Most answers have none; older accounts lack the field.
        del stored["kept"]
    return json.dumps(stored, sort_keys=True)


def from_json(stored: str) -> Answer:
    """Read a stored answer and mark it as replayed. Ignores fields it does not know.

    Cleans text and tokens: an earlier version stored them as they came.
    """
    known = {part.name for part in fields(Answer)} - {*_NOT_STORED}
    read = {name: value for name, value in parse_reply(stored).items() if name in known}
    answer = Answer(**{"usd": None, **read}, replayed=True)
    if not is_plausible(answer.tokens_in) or not is_plausible(answer.tokens_out):
        answer = replace(answer, tokens_in=0, tokens_out=0, usd=None)
    if answer.usd is not None and not 0 <= answer.usd < float("inf"):
        answer = replace(answer, usd=None)
    return replace(
        answer,
        text=clean(answer.text),
        reason=one_line(answer.reason),
        model=one_line(answer.model, _MODEL_LENGTH),
    )
