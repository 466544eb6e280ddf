"""The rate limits of a provider's account: pure arithmetic.

A call is charged from the moment its permit is given until a minute after it reached the provider,
so no sliding minute of the provider holds more than the limit. Permits are also paced, because a
provider may enforce a limit over less than a minute.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neuron_atlas.tasks.models.account.messages import LEASE_S, Usage
from neuron_atlas.tasks.models.settings import LimitSettings

_WINDOW_S = 60.0
_BURST_S = 5.0
"""Seconds of unused rate that may be spent as a burst."""
_OTHERS_SHARE = 0.02
"""Other clients' usage is ignored below this share of the limit."""
_SLOWDOWN = 0.7
_SLOWEST = 0.05
_RECOVERY_S = 60.0
_IN_LINE_S = 1.0
"""A program that has to wait keeps its place in line for this long."""


class Throttle:
    """Deal permits to programs that share the limits of an account. clock: seconds.

    Attributes: last_exchange_at: when `exchange_permits` was last called (clock, s).
    """

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic):
        self._clock, self._settings = clock, settings
        self.last_exchange_at = clock()
        self._requests = _Rate(settings.requests_per_minute)
        self._tokens = _Rate(settings.tokens_per_minute)
        self._permits: dict[int, _Permit] = {}
        self._heartbeats: dict[str, float] = {}
        self._line: dict[str, float] = {}
        self._last_permit = time.time_ns()  # Differs from the numbers of earlier processes.
        self._resume_at = self._slowed_at = float("-inf")
        self._pace_then = 1.0

    def set_limits(self, settings: LimitSettings) -> LimitSettings:
        """Set new limits and return the previous ones. Permits in use still count."""
        before, self._settings = self._settings, settings
        self._requests.configured = settings.requests_per_minute
        self._tokens.configured = settings.tokens_per_minute
        return before

    @property
    def pace(self) -> float:
        """Share of the limits in use: 1, or less after a rejected call."""
        since = self._clock() - self._slowed_at
        return min(1.0, self._pace_then + since / _RECOVERY_S)

    def exchange_permits(
        self, program: str, used: Sequence[tuple[int, Usage]], wants: Sequence[int]
    ) -> tuple[list[int], float]:
        """Take back permits, and return permits for the first calls that a program wants.

        wants: the most tokens of each call. Returns the permits and the seconds until asking again
        is worthwhile. Programs take turns; each call of `exchange_permits` is also a heartbeat.
        """
        self._heartbeats[program] = self.last_exchange_at = now = self._clock()
        for permit, usage in used:
            self.settle(permit, usage)
        self.expire()
        permits: list[int] = []
        if not wants:
            return permits, 0.0
        self._line = {name: at for name, at in self._line.items() if now - at < _IN_LINE_S}
        self._line[program] = now
        if next(iter(self._line)) == program:
            for tokens in wants:
                permit_or_none = self.grant(program, tokens)
                if permit_or_none is None:
                    break
                permits.append(permit_or_none)
        if permits:  # To the end of the line, or out of it.
            del self._line[program]
            if len(permits) < len(wants):
                self._line[program] = now
        wait_s = 0.0 if len(permits) == len(wants) else self.wait_s(wants[len(permits)])
        return permits, wait_s

    def grant(self, program: str, tokens: int) -> int | None:
        """Return a permit for one call of at most `tokens` tokens, or None if it has to wait."""
        now = self._clock()
        # A call over the limit by itself goes out alone; the provider decides.
        tokens = self._tokens.at_most(tokens)
        if self.wait_s(tokens) > 0:
            return None
        self._last_permit += 1
        self._requests.charge(1, now, self.pace)
        self._tokens.charge(tokens, now, self.pace)
        self._permits[self._last_permit] = _Permit(
            program, tokens, now, self._requests.charged(now), self._tokens.charged(now)
        )
        self._heartbeats.setdefault(program, now)
        return self._last_permit

    def wait_s(self, tokens: int) -> float:
        """Return the seconds until a permit for `tokens` tokens may be available; 0 for now."""
        now = self._clock()
        if len(self._permits) >= self._settings.concurrency:
            return _WINDOW_S
        tokens = self._tokens.at_most(tokens)
        return max(
            self._resume_at - now,
            self._requests.wait_s(1, now),
            self._tokens.wait_s(tokens, now),
            0.0,
        )

    def settle(self, number: int, usage: Usage) -> None:
        """Take a permit back. One that expired is charged already."""
        permit = self._permits.pop(number, None)
        if permit is None:
            return
        now = self._clock()
        if not usage.sent:
            self._requests.give_back(1, self.pace)
            self._tokens.give_back(permit.tokens, self.pace)
            return
        tokens = permit.tokens if usage.tokens is None else usage.tokens
        frees_at = max(now - usage.age_s, permit.given_at) + _WINDOW_S
        self._requests.settle(1, 1, frees_at, self.pace)
        self._tokens.settle(permit.tokens, tokens, frees_at, self.pace)
        if usage.hint is not None:
            hint = usage.hint
            self._requests.apply_hint(
                hint.limit_requests, hint.remaining_requests, permit.requests_then, now
            )
            self._tokens.apply_hint(
                hint.limit_tokens, hint.remaining_tokens, permit.tokens_then, now
            )
        if usage.pause_s is not None:
            self._slow_down(permit, usage.pause_s, now)

    def expire(self) -> int:
        """Take back the permits of dead programs as used; return how many."""
        now = self._clock()
        dead = {name for name, at in self._heartbeats.items() if now - at > LEASE_S}
        lost = [number for number, permit in self._permits.items() if permit.program in dead]
        for number in lost:
            self.settle(number, Usage())
        for name in dead:
            del self._heartbeats[name]
        return len(lost)

    def _slow_down(self, permit: _Permit, pause_s: float, now: float) -> None:
        self._resume_at = max(self._resume_at, now + pause_s)
        # Calls in flight together are rejected together: one event.
        if permit.given_at > self._slowed_at:
            self._pace_then = max(_SLOWEST, self.pace * _SLOWDOWN)
            self._slowed_at = now


@dataclass(frozen=True)
class _Permit:
    """requests_then, tokens_then: total charge right after this permit was given."""

    program: str
    tokens: int
    given_at: float
    requests_then: float
    tokens_then: float


class _Rate:
    """One quantity over a sliding minute: requests, or tokens."""

    def __init__(self, configured: int | None) -> None:
        self.configured = configured
        self._reported: int | None = None
        self._charged = 0.0
        self._frees: list[tuple[float, float]] = []
        self._next_at = float("-inf")
        self._others = 0.0
        self._others_until = float("-inf")

    @property
    def limit(self) -> float:
        """The smaller of the configured and the provider's reported limit."""
        known = [limit for limit in (self.configured, self._reported) if limit is not None]
        return min(known, default=float("inf"))

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
            # Usage by others is only a hint: without our own, one call tests it.
            freed = self._frees[0][0] - now if self._frees else _WINDOW_S
            return max(freed, 1e-3)
        return max(self._next_at - now, 0.0)

    def charge(self, amount: float, now: float, pace: float) -> None:
        self._charged += amount
        if self._next_at == float("-inf"):
            self._next_at = now
        self._next_at = max(self._next_at, now - _BURST_S) + self._paced_s(amount, pace)

    def give_back(self, amount: float, pace: float) -> None:
        self._charged -= amount
        self._next_at -= self._paced_s(amount, pace)

    def settle(self, reserved: float, used: float, frees_at: float, pace: float) -> None:
        self._charged += used - reserved
        self._next_at += self._paced_s(used - reserved, pace)
        heapq.heappush(self._frees, (frees_at, used))

    def apply_hint(self, limit: int | None, left: int | None, charged: float, now: float) -> None:
        """Apply a provider's hint: a lower limit, or usage of the account by other clients."""
        if limit is None:
            return
        self._reported = limit
        if left is None:
            return
        missing = limit - charged - left
        self._others = missing if missing > _OTHERS_SHARE * limit else 0.0
        self._others_until = now + _WINDOW_S

    def _paced_s(self, amount: float, pace: float) -> float:
        return 0.0 if self.limit == float("inf") else amount * _WINDOW_S / (self.limit * pace)
