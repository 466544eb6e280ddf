"""What can go wrong with a call, and whether to ask again, give up on it, or stop altogether."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from neuron_atlas.tasks.models.headers import retry_after

if TYPE_CHECKING:  # Importing openai takes a second, and whoever catches Unusable need not pay it.
    import openai

_FILTER_CODES = ("content_filter", "content_policy_violation")


class Unusable(Exception):
    """No call can succeed until somebody acts; the message is one line that says how."""


class Stopped(Unusable):
    """The same once a run was under way: the call was right, and what was finished is kept."""


@dataclass(frozen=True)
class Failure:
    """A call without an answer. `status` is one of the `explanations` table's.

    transient: the same request may succeed later. billed: it may have been paid for all the same.
    reached: it may have reached the provider, whose limits then count it. excused: it is no fault
    of the request, which may be sent again as if it had not been. wait_s: how long the provider
    asks to be left alone, if it says so.
    """

    status: str
    reason: str
    transient: bool = False
    billed: bool = False
    reached: bool = True
    excused: bool = False
    wait_s: float | None = None

    @property
    def kind(self) -> str:
        """The status with the head of the reason, as failures are counted by: `failed/HTTP 500`."""
        return f"{self.status}/{self.reason.split(':')[0]}"


def from_status(
    error: openai.APIStatusError, model: str, api_key_env: str, group: str
) -> Failure | Unusable:
    """Read an HTTP status of 4xx or 5xx; group: of the settings that advice names. An `Unusable` is
    returned, not raised: raising it where `error` is being handled would chain the request, and
    with it the key, to it."""
    told = error.body if isinstance(error.body, Mapping) else {}
    told = {"message": type(error).__name__, "code": error.code, "type": error.type} | {
        name: value for name, value in told.items() if value
    }
    read = from_reply(error.status_code, told, model, api_key_env, group)
    if isinstance(read, Failure) and read.status != "filtered":
        return replace(read, wait_s=retry_after(error.response.headers))
    return read


def from_reply(
    number: int, told: Mapping[str, Any], model: str, api_key_env: str, group: str
) -> Failure | Unusable:
    """Read an HTTP status of 4xx or 5xx, and the `error` of the reply's body."""
    code, kind = str(told.get("code") or ""), told.get("type")
    if number == 401 or number == 403:
        return Unusable(
            f"the provider refuses the key in the environment variable {api_key_env} "
            f"(HTTP {number}): put a key there that may use the model {model!r}, "
            f"or name another variable in {group}.client.api_key_env"
        )
    if number == 402 or "insufficient_quota" in (code, kind):
        return Unusable(
            f"the account of the key in {api_key_env} has no quota left (HTTP {number}): add credit"
            f" to it, or name the variable of another account's key in {group}.client.api_key_env"
        )
    if code == "model_not_found":
        return Unusable(
            f"the provider does not know the model {model!r}: set {group}.client.model to one that "
            "it offers to this key"
        )
    if number == 404:
        return Unusable(
            f"the provider answers HTTP 404: check that {group}.client.base_url ends where "
            f"/chat/completions begins (often /v1), and that it offers {group}.client.model="
            f"{model!r}"
        )
    reason = f"HTTP {number}: {told.get('message') or 'no reason given'}"
    if code in _FILTER_CODES:
        return Failure("filtered", reason)
    if number == 429:
        return Failure("rate_limited", reason, transient=True)
    if number == 408:
        return Failure("timed_out", reason, transient=True, billed=True)
    if number == 409:
        return Failure("failed", reason, transient=True)
    if number == 503:  # Turned down before anything was worked on.
        return Failure("failed", reason, transient=True)
    if number >= 500:
        return Failure("failed", reason, transient=True, billed=True)
    return Failure("failed", reason)


def from_connection(error: openai.APIConnectionError) -> Failure:
    """Read a connection that could not be made, or broke before the answer was whole."""
    cause = error.__cause__ or error
    kind = type(cause).__name__
    # By name, because openai raises these from either of two HTTP libraries.
    reached = not kind.startswith("Connect")
    return Failure(
        "failed", f"connection: {kind}: {cause}", transient=True, billed=reached, reached=reached
    )
