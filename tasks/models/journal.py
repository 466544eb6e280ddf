"""What a journal of calls promises, and what it tells of them.

A call is journaled as an intent before it is sent and settled with its answer afterwards. Whoever
finds an intent without an answer knows that the provider may have billed a call whose answer was
lost; it counts as spent, at the most that it can have cost, and the request may be sent again.

Neither keys nor requests are journaled: only the hash of a request, the model's name, the answer,
and what it cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True)
class Claim:
    """Whether a request may be sent.

    granted: yes, and `call` is the intent's number. answered: `told` is the journaled answer
    (JSON). busy: someone else is sending the same, or so much money is set aside for calls under
    way that it cannot be told yet; ask again. over_budget, stopped: no, and `told` says why.
    """

    kind: Literal["granted", "answered", "busy", "over_budget", "stopped"]
    call: int = 0
    told: str = ""


@dataclass(frozen=True)
class Spent:
    """What an answered call took. usd: None where the model has no price. seconds: of the call."""

    status: str
    usd: float | None = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Tally:
    """What calls came to, for one purpose.

    Of all runs: spent_usd, what answers cost and what calls without a result may have cost;
    lost: the number of those. Of this run: the rest. outcomes: calls by how they ended, with the
    failed ones by their reason. p50_s ...: seconds of an answered call, by percentile.
    """

    budget_usd: float | None = None
    spent_usd: float = 0.0
    held_usd: float = 0.0
    lost: int = 0
    requests: int = 0
    answered: int = 0
    replayed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    run_usd: float = 0.0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None


class Journal(Protocol):
    """Remembers calls by the hash of their request.

    Arguments and results are plain, so that a proxy can forward each method to a journal that
    lives in another process. Whoever holds claims must `beat` every BEAT_S: those of an owner that
    is not heard of for LEASE_S lapse, and someone else may send the request.
    """

    async def answer(self, request_hash: str) -> str | None:
        """The settled answer (JSON) to this request, or None."""

    async def claim(self, request_hash: str, model: str, worst_usd: float, owner: str) -> Claim:
        """Note the intent to send a request that costs at most so much, if it may be sent.

        A grant is returned once it would survive a crash.
        """

    async def settle(self, call: int, answer: str, spent: Spent) -> None:
        """Keep the answer (JSON) to a claimed call for ever; the first one stays.

        Returns once it would survive a crash. Raises KeyError where nothing was claimed.
        """

    async def fail(self, call: int, status: str, billed: bool) -> None:
        """End a claimed call that got no answer; billed: it may have been paid for all the same."""

    async def beat(self, owner: str) -> None:
        """The owner lives."""

    async def stop(self, why: str) -> None:
        """Let nobody claim anything in this run any more; `why` is what they are told."""

    async def tally(self) -> Tally:
        """What calls came to so far."""


class NoJournal:
    """Remembers nothing, and lets everything pass."""

    async def answer(self, request_hash: str) -> str | None:
        """Never an answer."""
        return None

    async def claim(self, request_hash: str, model: str, worst_usd: float, owner: str) -> Claim:
        """Always granted."""
        return Claim("granted")

    async def settle(self, call: int, answer: str, spent: Spent) -> None:
        """Forget it."""

    async def fail(self, call: int, status: str, billed: bool) -> None:
        """Forget it."""

    async def beat(self, owner: str) -> None:
        """Forget it."""

    async def stop(self, why: str) -> None:
        """Forget it."""

    async def tally(self) -> Tally:
        """Nothing is remembered, so there is nothing."""
        return Tally()
