"""Messages between a caller and an account.

An account holds everything that the calls to a model share: rate limits, budget and answers. A
caller looks up an answer. Without one, it leases a call, sends it, and settles it. A lease reserves
the most that the call can cost and is on disk before the caller sees it. A call that was leased but
never settled may have been billed, so it counts as spent at that cost.

Neither API keys nor requests are stored: only a request's hash, the model, the answer, the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from neuron_atlas.tasks.models.headers import RateLimitHint
from neuron_atlas.tasks.models.negotiation import ServerFeatures

HEARTBEAT_S = 2.0
LEASE_S = 15.0
"""An owner without a heartbeat for this long is dead, and its leases expire."""


@dataclass(frozen=True)
class LeaseRequest:
    """A request to send, with the most tokens that may count for it and the most it can cost."""

    request_hash: str
    model: str
    tokens: int
    usd: float


@dataclass(frozen=True)
class Permit:
    """Permission to send a request once. call: the number to settle."""

    call: int


@dataclass(frozen=True)
class StoredAnswer:
    """The request has been answered. answer: JSON."""

    answer: str


@dataclass(frozen=True)
class Refusal:
    """The request may not be sent: over the budget, or the run is being stopped."""

    kind: Literal["budget", "stopped"]
    reason: str


@dataclass(frozen=True)
class FeatureReport:
    """What a caller found out about a model's server. The reply is all that is known of it.

    server: name of the provider and the model.
    """

    server: str
    found: ServerFeatures


@dataclass(frozen=True)
class Usage:
    """Share of the provider's limits that a call used.

    sent: whether it may have reached the provider. tokens: as the provider counted them; None
    keeps what was reserved. age_s: seconds since the call reached the provider, at least.
    pause_s: the provider rejected the call as too early; no caller sends for this long.
    """

    sent: bool = True
    tokens: int | None = None
    age_s: float = 0.0
    pause_s: float | None = None
    hint: RateLimitHint | None = None


@dataclass(frozen=True)
class CallResult:
    """Result of a leased call.

    answer: JSON; None for a failed call, which counts as spent only if `maybe_billed`. usd: None
    where the model has no price. seconds: of the call. stop: why no further call can succeed.
    wait_s, wait_reason: how long the caller, or every caller, now waits, and for what. notice: a
    line for the user, shown once so many calls had it (`notice_after`).
    """

    call: int
    status: str
    request_hash: str = ""
    answer: str | None = None
    maybe_billed: bool = False
    usd: float | None = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    stop: str = ""
    usage: Usage = Usage()
    wait_s: float = 0.0
    wait_reason: str = ""
    notice: str = ""
    notice_after: int = 1


AccountMessage = str | LeaseRequest | CallResult | FeatureReport
"""A request's hash to look up, a request to lease, the end of a call to settle, or what was found
out about a server."""
AccountReply = Permit | StoredAnswer | Refusal | ServerFeatures | Literal["free", "busy"] | None
"""None: a result is stored, or there is no stored answer. free, busy: a lease is undecided; ask for
it again. free: the rate limits have no permit yet. busy: a call under way may bring its answer or
holds the budget it needs."""


class Account(Protocol):
    """Rate limits, budget and answers of one model, shared by all its callers.

    Each caller process is an `owner` and sends a message at least every HEARTBEAT_S.
    """

    @property
    def received_folder(self) -> Path | None:
        """Where callers store answers until the account has them (see `received`)."""

    async def exchange(
        self, owner: str, items: Sequence[AccountMessage]
    ) -> tuple[list[AccountReply], float]:
        """Return a reply to each item, and the seconds to wait before asking for undecided leases.

        All replies survive a crash. Settling twice is harmless. Raises KeyError for the result of a
        call that was never leased, DiskFullError if the disk is full.
        """
