"""How the provider misbehaves when it is told to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.loopback.protocol import Rejection

REJECTIONS = {
    "400": Rejection(400, "Something about this request is wrong."),
    "401": Rejection(401, "Incorrect API key provided.", code="invalid_api_key"),
    "403": Rejection(403, "You are not allowed to use this model.", kind="permission_error"),
    "404": Rejection(404, "The model does not exist.", code="model_not_found"),
    "408": Rejection(408, "Timed out.", kind="timeout"),
    "409": Rejection(409, "Locked.", kind="conflict"),
    "429": Rejection(429, "Rate limit reached.", kind="requests", code="rate_limit_exceeded"),
    "500": Rejection(500, "The server had an error.", kind="server_error"),
    "503": Rejection(503, "The engine is overloaded.", kind="server_error"),
    "insufficient_quota": Rejection(
        429,
        "You exceeded your current quota.",
        kind="insufficient_quota",
        code="insufficient_quota",
    ),
    "filtered_request": Rejection(400, "The prompt was filtered.", code="content_filter"),
    "no_json_schema": Rejection(
        400,
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported.",
        param="response_format",
    ),
    "no_logprobs": Rejection(
        400, "This model does not support logprobs.", param="logprobs", code="unsupported_parameter"
    ),
    "few_logprobs": Rejection(
        400, "Invalid value for 'top_logprobs': must be at most 5.", param="top_logprobs"
    ),
}
BROKEN_OFF = ("hang", "reset", "half_body", "invalid_json")


@dataclass
class Fault:
    """One order to misbehave; see tests/loopback/provider.py."""

    kind: str
    times: int = 1
    match: str = ""
    retry_after: str | None = None
    retry_after_ms: str | None = None
    seconds: float = 0.0
    status: int = 200
    body: str = ""
    field: str = ""

    def waits(self) -> dict[str, str]:
        """The headers that ask for a wait."""
        given = {"retry-after": self.retry_after, "retry-after-ms": self.retry_after_ms}
        return {name: value for name, value in given.items() if value is not None}


class Faults:
    """Orders, used up one by one."""

    def __init__(self) -> None:
        self.orders: list[Fault] = []

    def take(self, text: str, body: dict[str, Any]) -> Fault | None:
        """The first order for such a request."""
        spared = {
            "no_json_schema": "response_format" not in body,
            "no_logprobs": "logprobs" not in body,
            "few_logprobs": body.get("top_logprobs", 0) <= 5,
        }
        for fault in self.orders:
            if fault.match not in text or spared.get(fault.kind, False):
                continue
            if fault.field and f'"{fault.field}"' not in text:
                continue
            fault.times -= 1
            if fault.times == 0:
                self.orders.remove(fault)
            return fault
        return None
