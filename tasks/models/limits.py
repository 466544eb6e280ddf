"""How fast calls may go out: a provider's limits, kept by whoever deals out permits to call.

A permit is charged from when it is given until a minute after the call reached the provider, so
wherever the provider's own sliding minute begins, no more lies within it than is permitted. Beside
that, permits are paced, for providers may look at less than a minute.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from neuron_atlas.tasks.models.headers import Hint
from neuron_atlas.tasks.models.settings import LimitSettings

_WINDOW_S = 60.0
_CREDIT_S = 5.0
"""Of pace that was missed, so much is made up for."""
_NOTICED_SHARE = 0.02
"""Of a limit: what others use of it is heeded above that."""
_SLOWED = 0.7
_SLOWEST = 0.05
_RECOVERY_S = 60.0
LEASE_S = 15.0
"""Whoever is not heard of for so long is taken for dead."""
BEAT_S = 2.0


@dataclass(frozen=True)
class Settled:
    """What became of a permit.

    sent: whether there was a call. tokens: as the provider counted them; None where it did not say,
    which leaves what was reserved. age_s: how long ago the call had reached the provider at the
    latest. pause_s: it was turned down for coming too soon, and nobody shall call for so long.
    """

    permit: int
    sent: bool = True
    tokens: int | None = None
    age_s: float = 0.0
    pause_s: float | None = None
    hint: Hint | None = None


class Limits(Protocol):
    """Deals out permits to call. Whoever holds some must `beat` every BEAT_S."""

    async def lease(self, owner: str, wants: tuple[int, ...]) -> tuple[int, ...]:
        """Permits for the first of some calls, at least one, as soon as there are any.

        wants: of each call the most tokens that it may count for.
        """

    async def settle(self, owner: str, settled: tuple[Settled, ...]) -> None:
        """Give permits back."""

    async def beat(self, owner: str) -> None:
        """The owner lives."""


class Throttle:
    """The arithmetic of limits; `clock` gives seconds."""

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._requests = _Rate(settings.requests_per_minute)
        self._tokens = _Rate(settings.tokens_per_minute)
        self._concurrency = settings.concurrency
        self._permits: dict[int, _Permit] = {}
        self._heard_of: dict[str, float] = {}
        self._known_since: dict[str, float] = {}
        self._last_permit = 0
        self._resume_at = self._slowed_at = float("-inf")
        self._pace_then = 1.0

    def change(self, settings: LimitSettings) -> None:
        """Other limits from now on; what is under way still counts."""
        self._requests.asked = settings.requests_per_minute
        self._tokens.asked = settings.tokens_per_minute
        self._concurrency = settings.concurrency

    @property
    def in_flight(self) -> int:
        """Permits that are out."""
        return len(self._permits)

    @property
    def pace(self) -> float:
        """The share of the limits that is used now: 1, or less after a call was turned down."""
        since = self._clock() - self._slowed_at
        return min(1.0, self._pace_then + since / _RECOVERY_S)

    def grant(self, owner: str, tokens: int) -> int | None:
        """A permit for one call that counts at most so many tokens, or None: not yet."""
        now = self._clock()
        # A call that is over the limit by itself is let through alone, for the provider to judge.
        tokens = self._tokens.at_most(tokens)
        if self.wait_s(tokens) > 0:
            return None
        self._last_permit += 1
        pace = self.pace
        self._requests.charge(1, now, pace)
        self._tokens.charge(tokens, now, pace)
        self._permits[self._last_permit] = _Permit(
            owner, tokens, now, self._requests.charged(now), self._tokens.charged(now)
        )
        self.known_since(owner)
        return self._last_permit

    def wait_s(self, tokens: int) -> float:
        """Seconds until it is worth while to ask for such a permit; 0: now."""
        now = self._clock()
        if len(self._permits) >= self._concurrency:
            return _WINDOW_S
        tokens = self._tokens.at_most(tokens)
        return max(
            self._resume_at - now,
            self._requests.wait_s(1, now),
            self._tokens.wait_s(tokens, now),
            0.0,
        )

    def settle(self, settled: Settled) -> None:
        """See `Limits`. A permit that has expired is charged already."""
        permit = self._permits.pop(settled.permit, None)
        if permit is None:
            return
        now = self._clock()
        if not settled.sent:
            self._requests.give_back(1, self.pace)
            self._tokens.give_back(permit.tokens, self.pace)
            return
        tokens = permit.tokens if settled.tokens is None else settled.tokens
        frees_at = max(now - settled.age_s, permit.given_at) + _WINDOW_S
        self._requests.settle(1, 1, frees_at, self.pace)
        self._tokens.settle(permit.tokens, tokens, frees_at, self.pace)
        if settled.hint is not None:
            hint = settled.hint
            self._requests.heed(hint.limit_requests, hint.left_requests, permit.requests_then, now)
            self._tokens.heed(hint.limit_tokens, hint.left_tokens, permit.tokens_then, now)
        if settled.pause_s is not None:
            self._slow_down(permit, settled.pause_s, now)

    def beat(self, owner: str) -> None:
        """See `Limits`."""
        self._heard_of[owner] = self._clock()

    def known_since(self, owner: str) -> float:
        """When an owner was first heard of: now, if it was not."""
        now = self._clock()
        self._heard_of.setdefault(owner, now)
        return self._known_since.setdefault(owner, now)

    def expire(self) -> int:
        """Take back the permits of the dead as if each had been used up; how many."""
        now = self._clock()
        dead = {owner for owner, heard in self._heard_of.items() if now - heard > LEASE_S}
        lost = [number for number, permit in self._permits.items() if permit.owner in dead]
        for number in lost:
            self.settle(Settled(number))
        for owner in dead:
            del self._heard_of[owner]
            self._known_since.pop(owner, None)
        return len(lost)

    def _slow_down(self, permit: _Permit, pause_s: float, now: float) -> None:
        self._resume_at = max(self._resume_at, now + pause_s)
        # Calls that were on their way together are turned down together: one event.
        if permit.given_at > self._slowed_at:
            self._pace_then = max(_SLOWEST, self.pace * _SLOWED)
            self._slowed_at = now


@dataclass(frozen=True)
class _Permit:
    """*_then: what was charged in all, right after this permit was given."""

    owner: str
    tokens: int
    given_at: float
    requests_then: float
    tokens_then: float


class _Rate:
    """One quantity in a sliding minute: requests, or tokens."""

    def __init__(self, asked: int | None) -> None:
        self.asked = asked
        self._told: int | None = None
        self._charged = 0.0
        self._frees: list[tuple[float, float]] = []
        self._next_at = float("-inf")
        self._others = 0.0
        self._others_until = float("-inf")

    @property
    def limit(self) -> float:
        """The smaller of what the settings and the provider say."""
        return min(
            float("inf") if self.asked is None else self.asked,
            float("inf") if self._told is None else self._told,
        )

    def at_most(self, amount: int) -> int:
        return amount if amount <= self.limit else int(self.limit)

    def charged(self, now: float) -> float:
        while self._frees and self._frees[0][0] <= now:
            self._charged -= heapq.heappop(self._frees)[1]
        return self._charged

    def wait_s(self, amount: float, now: float) -> float:
        if self.limit == float("inf"):
            return 0.0
        others = self._others if now < self._others_until else 0.0
        if self.charged(now) and self.limit - self._charged - others < amount:
            # Others' use is a hint; with nothing of ours under way, one call finds out.
            freed = self._frees[0][0] - now if self._frees else _WINDOW_S
            return max(freed, 1e-3)
        return max(self._next_at - now, 0.0)

    def charge(self, amount: float, now: float, pace: float) -> None:
        self._charged += amount
        if self._next_at == float("-inf"):
            self._next_at = now
        self._next_at = max(self._next_at, now - _CREDIT_S) + self._paced_s(amount, pace)

    def give_back(self, amount: float, pace: float) -> None:
        self._charged -= amount
        self._next_at -= self._paced_s(amount, pace)

    def settle(self, reserved: float, used: float, frees_at: float, pace: float) -> None:
        self._charged += used - reserved
        self._next_at += self._paced_s(used - reserved, pace)
        heapq.heappush(self._frees, (frees_at, used))

    def heed(self, limit: int | None, left: int | None, charged: float, now: float) -> None:
        """Take a hint: a lower limit, or less left of it than what was charged here then leaves."""
        if limit is None:
            return
        self._told = limit
        if left is None:
            return
        missing = limit - charged - left
        self._others = missing if missing > _NOTICED_SHARE * limit else 0.0
        self._others_until = now + _WINDOW_S

    def _paced_s(self, amount: float, pace: float) -> float:
        return 0.0 if self.limit == float("inf") else amount * _WINDOW_S / (self.limit * pace)
