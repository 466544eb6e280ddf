"""Limits that many callers share, and the desk where each of them draws its permits."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field

from neuron_atlas.tasks.models.limits import BEAT_S, Limits, Settled, Throttle
from neuron_atlas.tasks.models.settings import LimitSettings

_LONGEST_NAP_S = 0.25
_SHORTEST_NAP_S = 0.005
_GROUP = 64
"""Permits that are asked for at once, at most."""
_SETTLE_EVERY_S = 0.01
_FAILURES = 100
"""After so many in a row, giving permits back does not work."""


class SharedLimits:
    """The `Limits` themselves, dealt in turn to all programs that wait.

    Of one program's owners the oldest is served first. Were they served in turn as well, those who
    began together would end together, and nobody would be left to use what the last calls of each
    leave free.
    """

    def __init__(self, settings: LimitSettings) -> None:
        self.throttle = Throttle(settings)
        self._waiting: list[_Waiter] = []
        self._turns: dict[str, int] = {}
        """When a program was last served, counted in permits."""
        self._changed = asyncio.Event()
        self._dealing: asyncio.Task[None] | None = None

    async def lease(self, owner: str, wants: tuple[int, ...], program: str = "") -> tuple[int, ...]:
        """See `Limits`. program: that the owner belongs to."""
        future = asyncio.get_running_loop().create_future()
        since = self.throttle.known_since(owner)
        waiter = _Waiter(owner, program, since, deque(wants), future)
        self._waiting.append(waiter)
        self._changed.set()
        if self._dealing is None or self._dealing.done():
            self._dealing = asyncio.ensure_future(self._deal())
        try:
            return await waiter.given
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)
            if waiter.given.done() and not waiter.given.cancelled():
                waiter.permits = list(waiter.given.result())
            for permit in waiter.permits:
                self.throttle.settle(Settled(permit, sent=False))
            raise

    async def settle(self, owner: str, settled: tuple[Settled, ...]) -> None:
        """See `Limits`."""
        self.throttle.beat(owner)
        for one in settled:
            self.throttle.settle(one)
        self._changed.set()

    async def beat(self, owner: str) -> None:
        """See `Limits`."""
        self.throttle.beat(owner)

    async def _deal(self) -> None:
        while self._waiting:
            self._changed.clear()
            self.throttle.expire()
            self._give()
            if self._waiting:
                wait_s = self.throttle.wait_s(self._next().wants[0])
                nap_s = min(max(wait_s, _SHORTEST_NAP_S), _LONGEST_NAP_S)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), nap_s)

    def _give(self) -> None:
        """All permits that there are until the next one has to wait longer."""
        served: list[_Waiter] = []
        while self._waiting:
            waiter = self._next()
            permit = self.throttle.grant(waiter.owner, waiter.wants[0])
            if permit is None:
                break
            self._turns[waiter.program] = permit
            waiter.permits.append(permit)
            waiter.wants.popleft()
            if len(waiter.permits) == 1:
                served.append(waiter)
            if not waiter.wants:
                self._waiting.remove(waiter)
        for waiter in served:
            if waiter.wants:
                self._waiting.remove(waiter)
            waiter.given.set_result(tuple(waiter.permits))

    def _next(self) -> _Waiter:
        return min(self._waiting, key=lambda one: (self._turns.get(one.program, 0), one.since))


@dataclass(eq=False)
class _Waiter:
    owner: str
    program: str
    since: float
    wants: deque[int]
    given: asyncio.Future[tuple[int, ...]]
    permits: list[int] = field(default_factory=list)


class Permits:
    """One process's desk: its calls ask one by one, and it asks and settles for all together.

    So the limits, which may live on another machine, get a message for a group of calls. Use it
    with `async with`; it says that the process lives for as long.
    """

    def __init__(self, limits: Limits, owner: str) -> None:
        self._limits = limits
        self._owner = owner
        self._asking: deque[tuple[int, asyncio.Future[int]]] = deque()
        self._settled: list[Settled] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._asked = asyncio.Event()
        self._given_back = asyncio.Event()
        self._broken: Exception | None = None

    async def __aenter__(self) -> Permits:
        self._tasks = [
            asyncio.ensure_future(work()) for work in (self._lease, self._flush, self._beat)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # What it cannot give back any more lapses by itself.
        with contextlib.suppress(Exception):
            await self._settle()

    async def take(self, tokens: int) -> int:
        """A permit for one call, waited for. Raises what the limits raise, also where it is only
        giving permits back that fails again and again: they would soon be used up."""
        if self._broken is not None:
            raise self._broken
        given: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asking.append((tokens, given))
        self._asked.set()
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.give_back(Settled(given.result(), sent=False))
            raise

    def give_back(self, settled: Settled) -> None:
        """Settle one; it reaches the limits within a moment."""
        self._settled.append(settled)
        self._given_back.set()

    async def _lease(self) -> None:
        while True:
            await self._asked.wait()
            while self._asking and self._asking[0][1].done():
                self._asking.popleft()  # Cancelled meanwhile.
            if not self._asking:
                self._asked.clear()
                continue
            wants = tuple(tokens for tokens, _ in list(self._asking)[:_GROUP])
            try:
                permits = await self._limits.lease(self._owner, wants)
            except Exception as error:
                _, given = self._asking.popleft()
                if not given.done():
                    given.set_exception(error)
                continue
            for permit in permits:
                _, given = self._asking.popleft()
                if given.done():
                    self.give_back(Settled(permit, sent=False))
                else:
                    given.set_result(permit)

    async def _flush(self) -> None:
        failures = 0
        while True:
            await self._given_back.wait()
            await asyncio.sleep(_SETTLE_EVERY_S)
            self._given_back.clear()
            try:
                await self._settle()
                failures = 0
            except Exception as error:
                failures += 1
                if failures == _FAILURES:
                    self._break(error)

    async def _settle(self) -> None:
        if self._settled:
            settled, self._settled = tuple(self._settled), []
            try:
                await self._limits.settle(self._owner, settled)
            except BaseException:
                # If it was heard all the same, it does nothing the second time.
                self._settled[:0] = settled
                self._given_back.set()
                raise

    def _break(self, error: Exception) -> None:
        self._broken = error
        for _, given in self._asking:
            if not given.done():
                given.set_exception(error)

    async def _beat(self) -> None:
        while True:
            # One that is not heard is made up for by the next.
            with contextlib.suppress(Exception):
                await self._limits.beat(self._owner)
            await asyncio.sleep(BEAT_S)
