"""A request to a chat model, and its hash."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_BASE64 = ";base64,"

Extract = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Request:
    """One chat request, of any model.

    `messages` and `response_format` are in the form of the chat-completions protocol; `parameters`
    are its remaining fields (temperature, seed ...), where None means the provider's default.

    The remaining fields are neither sent nor hashed. affinity: requests with the same affinity
    should go to one server in sequence, which then has their prefix in its cache; "" for none.
    keep: extracts from a reply's body (a chat completion) the small part, as JSON, to store with
    the answer's text (`Answer.kept`), such as a few log probabilities. Nothing else of the reply is
    stored, so the same request must always have the same `extract`. required: features that are
    never left out, though the server refuses them (see `negotiation`).
    """

    messages: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    response_format: Mapping[str, Any] | None = None
    affinity: str = ""
    extract: Extract | None = None
    required: frozenset[str] = frozenset()

    def body(self, model: str) -> dict[str, Any]:
        """Return the request's body for `model`, without fields that are None."""
        fields = {
            "model": model,
            "messages": list(self.messages),
            **self.parameters,
            "response_format": self.response_format,
        }
        return {name: value for name, value in fields.items() if value is not None}


def request_hash(body: Mapping[str, Any], provider: str) -> str:
    """Return the SHA-256 of everything that determines the answer: the body and the provider.

    Images are hashed as the SHA-256 of their bytes. `provider` is included because two servers may
    serve different models under one name. The key, timeouts and max_attempts are not included.
    """
    hashed = json.dumps(
        {"provider": provider, "body": _with_hashed_images(body)},
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return hashlib.sha256(hashed.encode("utf-8", "surrogatepass")).hexdigest()


def _with_hashed_images(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_hashed_images(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_with_hashed_images(part) for part in value]
    if isinstance(value, str) and value.startswith("data:image/") and _BASE64 in value:
        kind, _, data = value.partition(_BASE64)
        return f"{kind};sha256,{hashlib.sha256(base64.b64decode(data)).hexdigest()}"
    return value
