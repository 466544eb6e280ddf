"""A request to a chat model, and its hash."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_BASE64 = ";base64,"

Keep = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Request:
    """One chat request, of any model.

    `messages` and `response_format` are in the form of the chat-completions protocol; `parameters`
    are its remaining fields (temperature, seed ...), where None means: leave it to the provider.

    What follows is neither sent nor hashed. affinity: requests with the same one should go to the
    same server one after the other, which then has their beginning in its cache; "" for none. keep:
    given a reply's body (a chat completion), the small part of it, as JSON, that is kept beside the
    text of the answer (`Answer.kept`), such as a few log probabilities; since only that is
    stored, the same request must always keep the same.
    """

    messages: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    response_format: Mapping[str, Any] | None = None
    affinity: str = ""
    keep: Keep | None = None

    def body(self, model: str) -> dict[str, Any]:
        """The request's body as `model` is sent it."""
        fields = {
            "model": model,
            "messages": list(self.messages),
            **self.parameters,
            "response_format": self.response_format,
        }
        return {name: value for name, value in fields.items() if value is not None}


def request_hash(body: Mapping[str, Any], provider: str) -> str:
    """SHA-256 over everything that decides the answer: the body and whose model it is.

    Images count by the SHA-256 of their bytes. `provider` is part of it because servers that give
    different models the same name must not answer for each other. The key, time limits and the
    number of attempts decide nothing and are left out.
    """
    told = json.dumps(
        {"provider": provider, "body": _with_hashed_images(body)},
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()


def _with_hashed_images(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_hashed_images(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_hashed_images(part) for part in value]
    if isinstance(value, str) and value.startswith("data:image/") and _BASE64 in value:
        kind, _, data = value.partition(_BASE64)
        return f"{kind};sha256,{hashlib.sha256(base64.b64decode(data)).hexdigest()}"
    return value
