"""What can go wrong with a call, and whether to ask again, give up on it, or stop altogether."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Importing openai takes a second, and whoever catches Unusable need not pay it.
    import openai

_FILTER_CODES = ("content_filter", "content_policy_violation")


class Unusable(Exception):
    """No call can succeed until somebody acts; the message is one line that says how."""


@dataclass(frozen=True)
class Failure:
    """A call without an answer. `status` is one of the `explanations` table's.

    transient: the same request may succeed later. billed: it may have been paid for all the same.
    wait_s: how long the provider asks to be left alone, if it says so.
    """

    status: str
    reason: str
    transient: bool = False
    billed: bool = False
    wait_s: float | None = None


def from_status(
    error: openai.APIStatusError, *, model: str, api_key_env: str
) -> Failure | Unusable:
    """Read an HTTP status of 4xx or 5xx. An `Unusable` is returned, not raised: raising it where
    `error` is being handled would chain the request, and with it the key, to it."""
    number, code = error.status_code, error.code or ""
    if number == 401 or number == 403:
        return Unusable(
            f"the provider refuses the key in the environment variable {api_key_env} "
            f"(HTTP {number}): put a key there that may use the model {model!r}, "
            "or name another variable in explain.client.api_key_env"
        )
    if number == 402 or "insufficient_quota" in (code, error.type):
        return Unusable(
            f"the account of the key in {api_key_env} has no quota left (HTTP {number}): add credit"
            " to it, or name the variable of another account's key in explain.client.api_key_env"
        )
    if code == "model_not_found":
        return Unusable(
            f"the provider does not know the model {model!r}: set explain.client.model to one that "
            "it offers to this key"
        )
    if number == 404:
        return Unusable(
            "the provider answers HTTP 404: check that client.base_url ends where "
            "/chat/completions begins (often /v1), and that it offers explain.client.model="
            f"{model!r}"
        )
    reason = f"HTTP {number}: {_message(error)}"
    if code in _FILTER_CODES:
        return Failure("filtered", reason)
    wait_s = retry_after(error.response.headers)
    if number == 429:
        return Failure("rate_limited", reason, transient=True, wait_s=wait_s)
    if number == 408:
        return Failure("timed_out", reason, transient=True, billed=True, wait_s=wait_s)
    if number == 409:
        return Failure("failed", reason, transient=True, wait_s=wait_s)
    if number >= 500:
        return Failure("failed", reason, transient=True, billed=True, wait_s=wait_s)
    return Failure("failed", reason)


def from_connection(error: openai.APIConnectionError) -> Failure:
    """Read a connection that could not be made, or broke before the answer was whole."""
    cause = error.__cause__ or error
    kind = type(cause).__name__
    # By name, because openai raises these from either of two HTTP libraries.
    reached = not kind.startswith("Connect")
    return Failure("failed", f"connection: {kind}: {cause}", transient=True, billed=reached)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait in seconds that the headers ask for (in ms, in s, or as a date), or None."""
    for header, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(header, "")) * unit
        except ValueError:
            continue
        if math.isfinite(wait_s):
            return max(wait_s, 0.0)
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(date.timestamp() - time.time(), 0.0)


def _message(error: openai.APIStatusError) -> str:
    told = error.body.get("message") if isinstance(error.body, dict) else None
    return str(told) if told else type(error).__name__
