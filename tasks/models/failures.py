"""Classify failed calls: retry, give up on the request, or stop the run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from neuron_atlas.tasks.models.clean_text import mask_key
from neuron_atlas.tasks.models.error_message import ErrorMessage, read_error
from neuron_atlas.tasks.models.headers import retry_after

if TYPE_CHECKING:  # Importing openai takes a second, which catching ProviderError should not cost.
    import openai

FINAL_STATUSES = ("filtered", "refused")
"""Statuses of a failure that is the outcome of its request: asking again changes nothing."""
_SHORT = 160
_REJECTED_UNSEEN = (503, 529)
"""Statuses of calls that are rejected before any work is done."""
_FILTER_CODES = frozenset(
    (
        *("content_filter", "content_policy_violation", "responsibleaipolicyviolation"),
        *("contentpolicyviolationerror", "data_inspection_failed", "prohibited_content"),
    )
)
_KEY_CODES = frozenset(
    (
        *("invalid_api_key", "api_key_invalid", "authentication_error", "unauthenticated"),
        *("invalid_authentication", "auth_error", "expired_api_key", "token_not_found_in_db"),
    )
)
_QUOTA_CODES = frozenset(
    (
        *("insufficient_quota", "billing_not_active", "billing_hard_limit_reached"),
        *("insufficient_credits", "insufficient_balance", "budget_exceeded", "payment_required"),
    )
)
_MODEL_CODES = frozenset(("model_not_found", "deploymentnotfound", "unknown_model"))
_ABOUT_INPUT = re.compile(
    r"\bflagged\b|moderation|content (?:management )?policy|content[_ ]filter|"
    r"safety (?:system|filter|polic)|usage polic|harmful|inappropriate|unsafe content|"
    r"responsible ai|"
    r"(?:input|prompt|image|content|message)s? (?:was|were|is|are|has been|have been) "
    r"(?:blocked|filtered)"
)
_ABOUT_KEY = re.compile(
    r"(?:invalid|incorrect|wrong|missing|expired|revoked|malformed|unknown|no|disabled|provide an?)"
    r" (?:\w+ ){0,2}(?:api[- _]?key|subscription key|auth(?:entication|orization)?(?: header|"
    r" token| credentials)?|credentials|access token|bearer token)\b|"
    r"(?:api[- _]?key|subscription key|access token|proxy server token|credentials)s?"
    r" (?:\w+ ){0,3}(?:not valid|invalid|incorrect|expired|revoked|missing|disabled|not found|"
    r"not provided|required|does not|passed)|invalid proxy server token|unauthori[sz]ed"
)
_ABOUT_ACCESS = re.compile(
    r"permission|not (?:allowed|permitted|authori[sz]ed|entitled|enabled)|no access|"
    r"(?:have|has) access|access (?:is |was )?denied|access to (?:the |this )?model|\bkey\b|"
    r"unsupported_country|country|region|territory|organi[sz]ation|\bproject\b|subscription|"
    r"billing|terms of service|accept the terms|deactivated|suspended|\bip address"
)
_NO_QUOTA = re.compile(
    r"insufficient (?:account )?(?:balance|credit|fund|quota)|credit balance is too low|"
    r"(?:out of|no|not enough|more) credits|requires more credits|budget has been exceeded"
)
_NO_MODEL = re.compile(
    r"\bmodel\b[^;]{0,80}?(?:not found|does not exist|doesn't exist|could not be found)|"
    r"is not a valid model|(?:unknown|invalid|no such) model\b|no such deployment|"
    r"deployment for this resource does not exist",
    re.IGNORECASE,
)
_RATE_LIMITED = re.compile(r"rate[-_ ]?limit|too[-_ ]many[-_ ]requests|resource_exhausted|throttl")
_PASSING = re.compile(
    r"overload|unavailable|time[d]?[-_ ]?out|try again|temporar|busy|capacity|internal|"
    r"server_error|upstream|bad gateway|\bloading\b|connection"
)


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
    number, said: the HTTP status and the provider's words, None without a reply.
    """

    status: str
    reason: str
    transient: bool = False
    billed: bool = False
    reached: bool = True
    not_counted: bool = False
    wait_s: float | None = None
    number: int | None = None
    said: ErrorMessage | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """Key to count failures by: the status and the start of the reason (`failed/HTTP 500`)."""
        return f"{self.status}/{self.reason.split(':')[0]}"


def from_status(
    error: openai.APIStatusError, model: str, api_key_env: str, group: str, key: str = ""
) -> Failure | ProviderError:
    """Classify an HTTP status of 4xx or 5xx; group: see `CallOptions`; key: see `from_reply`.

    Returns an `ProviderError` instead of raising it: raised while `error` is handled, it would be
    chained to the request, which holds the key.
    """
    response = error.response
    read = from_reply(error.status_code, response.text, model, api_key_env, group, key)
    if isinstance(read, Failure) and read.status not in FINAL_STATUSES:
        wait_s = retry_after(response.headers)
        return replace(read, wait_s=read.wait_s if wait_s is None else wait_s)
    return read


def from_reply(
    number: int | None, body: Any, model: str, api_key_env: str, group: str, key: str = ""
) -> Failure | ProviderError:
    """Classify an error by its HTTP status and what its body says.

    number: the HTTP status; None for the error of a reply with status 200, which counts as the
    status that the body names, if any. body: its text, or the parsed JSON. key: masked in the
    message.
    """
    text = body if isinstance(body, str) else json.dumps(body)
    said = read_error(mask_key(text, key))
    is_in_reply = number is None
    number = said.number if number is None else number
    words = said.text or ", ".join(sorted(said.codes)) or "no reason given"
    named = "an error in the reply" if number is None else f"HTTP {number}"
    status = _final_status(number, said)
    if status is not None:
        return Failure(status, f"{named}: {words}")
    unusable = _unusable(number, said, f"({named}: {_short(words)})", model, api_key_env, group)
    if unusable is not None:
        return ProviderError(unusable)
    failure = Failure("failed", f"{named}: {words}", number=number, said=said, wait_s=said.wait_s)
    if number == 429 or (number is None and _RATE_LIMITED.search(said.searched)):
        return replace(failure, status="rate_limited", transient=True)
    if number in (408, 504):
        return replace(failure, status="timed_out", transient=True, billed=True)
    if number in (409, 425) or number in _REJECTED_UNSEEN:
        return replace(failure, transient=True)
    if number is not None and number >= 500:
        return replace(failure, transient=True, billed=True)
    if number is None and is_in_reply:
        is_passing = _PASSING.search(said.searched) is not None
        return replace(failure, transient=is_passing, billed=_has_answer(body))
    return failure


def _final_status(number: int | None, said: ErrorMessage) -> str | None:
    """Return the status of a request whose input or answer the provider will not have; None for
    other errors."""
    if said.codes & _FILTER_CODES:
        return "filtered"
    if number not in (None, 400, 403, 422, 451) or not _ABOUT_INPUT.search(said.searched):
        return None
    return "refused" if number == 403 else "filtered"


def _unusable(
    number: int | None, said: ErrorMessage, words: str, model: str, api_key_env: str, group: str
) -> str | None:
    """Return why no call can succeed, with the remedy; None if calls may. words: the provider's."""
    is_about_key = bool(said.codes & _KEY_CODES) or _ABOUT_KEY.search(said.searched) is not None
    is_denied = is_about_key or _ABOUT_ACCESS.search(said.searched) is not None
    is_client_error = number is None or 400 <= number < 500
    if said.codes & _QUOTA_CODES or number == 402 or _NO_QUOTA.search(said.searched):
        return (
            f"the account of the key in {api_key_env} has no quota left {words}: add credit"
            f" to it, or name the variable of another account's key in {group}.client.api_key_env"
        )
    if number == 401 or (number == 403 and is_denied) or (is_client_error and is_about_key):
        return (
            f"the provider refuses the key in the environment variable {api_key_env} "
            f"{words}: put a key there that may use the model {model!r}, "
            f"or name another variable in {group}.client.api_key_env"
        )
    is_no_model = bool(said.codes & _MODEL_CODES) or _NO_MODEL.search(said.text) is not None
    if is_client_error and number != 429 and is_no_model:
        return (
            f"the provider does not know the model {model!r} {words}: set {group}.client.model to "
            "one that it offers to this key"
        )
    if number in (404, 405):
        return (
            f"the provider answers HTTP {number} {words}: check that {group}.client.base_url ends "
            f"where /chat/completions begins (often /v1), and that it offers {group}.client.model="
            f"{model!r}"
        )
    return None


def _short(words: str) -> str:
    return words if len(words) <= _SHORT else f"{words[:_SHORT]}..."


def _has_answer(body: Any) -> bool:
    """Return whether the body of a failed call has traces of an answer, which may be billed."""
    return isinstance(body, Mapping) and bool(body.get("choices") or body.get("usage"))


def from_connection(error: openai.APIConnectionError) -> Failure:
    """Classify a connection that could not be opened, or broke before the reply was complete."""
    cause = error.__cause__ or error
    kind = type(cause).__name__
    # By name: openai may use either of two HTTP libraries.
    reached = not kind.startswith("Connect")
    return Failure(
        "failed", f"connection: {kind}: {cause}", transient=True, billed=reached, reached=reached
    )
