"""Classify failed calls: retry, give up on the request, or stop the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from neuron_atlas.tasks.models.headers import retry_after

if TYPE_CHECKING:  # Importing openai takes a second, which catching ProviderError should not cost.
    import openai

_FILTER_CODES = ("content_filter", "content_policy_violation")


class ProviderError(Exception):
    """No call can succeed until the user acts; the message is one line with the remedy."""


class ProviderStoppedError(ProviderError):
    """Calls stopped succeeding during a run. The configuration is right; finished work is kept."""


@dataclass(frozen=True)
class Failure:
    """A call without an answer. status: as in the `explanations` table.

    transient: the same request may succeed later. billed: it may have been billed. reached: it may
    have reached the provider and count against its limits. not_counted: the failure does not count
    against max_attempts. wait_s: the wait that the provider requests, None if it requests none.
    """

    status: str
    reason: str
    transient: bool = False
    billed: bool = False
    reached: bool = True
    not_counted: bool = False
    wait_s: float | None = None

    @property
    def kind(self) -> str:
        """Key to count failures by: the status and the start of the reason (`failed/HTTP 500`)."""
        return f"{self.status}/{self.reason.split(':')[0]}"


def from_status(
    error: openai.APIStatusError, model: str, api_key_env: str, group: str
) -> Failure | ProviderError:
    """Classify an HTTP status of 4xx or 5xx; group: see `CallOptions`.

    Returns an `ProviderError` instead of raising it: raised while `error` is handled, it would be
    chained to the request, which holds the key.
    """
    body = error.body if isinstance(error.body, Mapping) else {}
    body = {"message": type(error).__name__, "code": error.code, "type": error.type} | {
        name: value for name, value in body.items() if value
    }
    read = from_reply(error.status_code, body, model, api_key_env, group)
    if isinstance(read, Failure) and read.status != "filtered":
        return replace(read, wait_s=retry_after(error.response.headers))
    return read


def from_reply(
    number: int, error: Mapping[str, Any], model: str, api_key_env: str, group: str
) -> Failure | ProviderError:
    """Classify an HTTP status of 4xx or 5xx, given the `error` object of the reply's body."""
    code, kind = str(error.get("code") or ""), error.get("type")
    if number == 401 or number == 403:
        return ProviderError(
            f"the provider refuses the key in the environment variable {api_key_env} "
            f"(HTTP {number}): put a key there that may use the model {model!r}, "
            f"or name another variable in {group}.client.api_key_env"
        )
    if number == 402 or "insufficient_quota" in (code, kind):
        return ProviderError(
            f"the account of the key in {api_key_env} has no quota left (HTTP {number}): add credit"
            f" to it, or name the variable of another account's key in {group}.client.api_key_env"
        )
    if code == "model_not_found":
        return ProviderError(
            f"the provider does not know the model {model!r}: set {group}.client.model to one that "
            "it offers to this key"
        )
    if number == 404:
        return ProviderError(
            f"the provider answers HTTP 404: check that {group}.client.base_url ends where "
            f"/chat/completions begins (often /v1), and that it offers {group}.client.model="
            f"{model!r}"
        )
    reason = f"HTTP {number}: {error.get('message') or 'no reason given'}"
    if code in _FILTER_CODES:
        return Failure("filtered", reason)
    if number == 429:
        return Failure("rate_limited", reason, transient=True)
    if number == 408:
        return Failure("timed_out", reason, transient=True, billed=True)
    if number == 409:
        return Failure("failed", reason, transient=True)
    if number == 503:  # Rejected before any work was done.
        return Failure("failed", reason, transient=True)
    if number >= 500:
        return Failure("failed", reason, transient=True, billed=True)
    return Failure("failed", reason)


def from_connection(error: openai.APIConnectionError) -> Failure:
    """Classify a connection that could not be opened, or broke before the reply was complete."""
    cause = error.__cause__ or error
    kind = type(cause).__name__
    # By name: openai may use either of two HTTP libraries.
    reached = not kind.startswith("Connect")
    return Failure(
        "failed", f"connection: {kind}: {cause}", transient=True, billed=reached, reached=reached
    )
