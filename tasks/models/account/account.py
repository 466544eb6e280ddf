"""An account in this process: one thread that owns the ledger and deals permits."""

from __future__ import annotations

import asyncio
import copy
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from neuron_atlas.tasks.artifacts.full_disk import DiskFull, full_disk
from neuron_atlas.tasks.models.account.batches import hold_open_batches
from neuron_atlas.tasks.models.account.ledger import Ledger
from neuron_atlas.tasks.models.account.messages import (
    HEARTBEAT_S,
    Permit,
    Reply,
    Result,
    Usage,
    Want,
)
from neuron_atlas.tasks.models.account.received import received_folder
from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.tasks.models.account.throttle import Throttle
from neuron_atlas.tasks.models.settings import LimitSettings

T = TypeVar("T")

Deal = Callable[[Sequence[tuple[int, Usage]], Sequence[int]], tuple[list[int], float]]
"""`Throttle.deal` of one program."""

_GROUP = 512
_WANTS = 64
"""Permits to ask for in one turn."""
_LONGEST_NAP_S = 0.25
_SHORTEST_NAP_S = 0.005
_LONGEST_WAIT_S = 0.5
"""Then an owner is asked what it wants by now, since nothing of what it wanted can be decided."""


class LocalAccount:
    """The `Account` of one purpose. Its methods may be called from any thread and event loop.

    Each turn of its thread takes all messages that have come in, does their work in one transaction
    of the ledger, gives permits, commits, and only then answers. So a group of calls costs one
    write to disk, and whatever a caller is told survives a crash.

    path: the ledger's file, None to keep it in memory. limits: used where `deal` is None. deal: the
    throttle that several programs share. The other arguments are those of `Ledger`.
    """

    def __init__(
        self,
        path: Path | str | None = None,
        purpose: str = "explain",
        budget_usd: float | None = None,
        limits: LimitSettings | None = None,
        *,
        deal: Deal | None = None,
        has_callers: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path: Path | Literal[":memory:"] = ":memory:" if path is None else Path(path)
        self._purpose = purpose
        self._deal = deal or partial(Throttle(limits or LimitSettings()).deal, "")
        self._messages: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        self._waiting: list[_Waiting] = []
        self._known_since: dict[str, float] = {}
        self._permits: dict[int, int] = {}
        """By call, the throttle's permit."""
        self._used: list[tuple[int, Usage]] = []
        self._nap_s = HEARTBEAT_S
        self._checked_at = time.monotonic()
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run,
            args=(lambda: self._open(budget_usd, has_callers, clock), opened),
            name="account",
            daemon=True,
        )
        self._thread.start()
        opened.result()

    @property
    def received_folder(self) -> Path | None:
        """See `Account`."""
        return received_folder(self._path, self._purpose)

    async def look_up(self, owner: str, hashes: Sequence[str]) -> list[str | None]:
        """See `Account`."""
        return await self.do(lambda ledger: [ledger.look_up(one) for one in hashes], owner)

    async def lease(self, owner: str, wants: Sequence[Want]) -> list[tuple[int, Reply]]:
        """See `Account`."""
        waiting = _Waiting(owner, list(wants), Future())

        def wait(_: Ledger) -> None:
            self._known_since.setdefault(owner, time.monotonic())
            self._waiting.append(waiting)

        await self.do(wait, owner)
        return await asyncio.wrap_future(waiting.replies)

    async def settle(self, owner: str, results: Sequence[Result]) -> None:
        """See `Account`."""

        def settle(ledger: Ledger) -> None:
            for result in results:
                self._give_back(result.call, result.usage)
                ledger.settle(result)

        await self.do(settle, owner)

    async def leave(self, owner: str, sent: Sequence[int]) -> None:
        """See `Account`."""

        def leave(ledger: Ledger) -> None:
            self._waiting = [one for one in self._waiting if one.owner != owner]
            self._known_since.pop(owner, None)
            for call in ledger.leases_of(owner):
                self._give_back(call, Usage(sent=call in sent))
                ledger.settle(Result(call, "stopped", maybe_billed=call in sent))

        await self.do(leave, owner)

    async def tally(self) -> Tally:
        """Return the totals so far."""
        return await self.do(lambda ledger: copy.deepcopy(ledger.tally))

    async def do(self, work: Callable[[Ledger], T], owner: str = "") -> T:
        """Return the result of some work on the ledger, once that is on disk."""
        done: Future[T] = Future()
        self._messages.put(_Message(owner, work, done))
        # Shielded: an answer that has been paid for is stored even if its caller is cancelled now.
        return await asyncio.shield(asyncio.wrap_future(done))

    def close(self) -> None:
        """Finish what is under way and close the file."""
        self._messages.put(None)
        self._thread.join()

    def _open(
        self, budget_usd: float | None, has_callers: bool, clock: Callable[[], float]
    ) -> None:
        self._ledger = Ledger(self._path, self._purpose, budget_usd, clock)
        hold_open_batches(self._ledger)
        self._ledger.take_over(has_callers=has_callers)

    def _run(self, open_ledger: Callable[[], None], opened: Future[None]) -> None:
        try:
            open_ledger()
        except BaseException as error:
            opened.set_exception(self._readable(error))
            return
        opened.set_result(None)
        is_open = True
        while is_open:
            messages = self._next_messages()
            is_open = None not in messages
            self._turn([message for message in messages if message is not None])
        self._ledger.database.close()

    def _next_messages(self) -> list[_Message | None]:
        """Wait for messages, or until it is time for the next turn; return all that came in."""
        messages: list[_Message | None] = []
        with suppress(queue.Empty):
            messages.append(self._messages.get(timeout=self._nap_s))
            while len(messages) < _GROUP and messages[-1] is not None:
                messages.append(self._messages.get_nowait())
        return messages

    def _turn(self, messages: Sequence[_Message]) -> None:
        outcomes: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            with self._ledger.transaction():
                for message in messages:
                    if message.owner:
                        self._ledger.beat(message.owner)
                    try:
                        outcomes.append((message.done, message.work(self._ledger), None))
                    except sqlite3.Error:
                        raise
                    except Exception as error:  # Concerns this message only.
                        outcomes.append((message.done, None, error))
                self._answer_waiting()
        except Exception as error:
            failure = self._readable(error)
            outcomes = [(message.done, None, failure) for message in messages]
            outcomes += [(one.replies, None, failure) for one in self._waiting]
            self._waiting = []
        now = time.monotonic()
        for waiting in list(self._waiting):
            if waiting.decided or now > waiting.until:
                outcomes.append((waiting.replies, waiting.decided, None))
                self._waiting.remove(waiting)
        for future, value, failed in outcomes:
            if not future.set_running_or_notify_cancel():
                continue
            if failed is None:
                future.set_result(value)
            else:
                future.set_exception(failed)

    def _answer_waiting(self) -> None:
        """Decide the requests that can be decided now, those of the oldest owner first.

        Served in turn, owners that began together would end together, and nobody would be left to
        use what the last calls of each leave free.
        """
        self._waiting.sort(key=lambda one: self._known_since[one.owner])
        free: list[tuple[_Waiting, int]] = []
        for waiting in self._waiting:
            for index, want in enumerate(waiting.wants):
                if len(free) == _WANTS:
                    break
                decision = self._ledger.decide(want)
                if decision == "free":
                    free.append((waiting, index))
                elif decision != "busy":
                    waiting.decided.append((index, decision))
        self._nap_s = _LONGEST_NAP_S if self._waiting else HEARTBEAT_S
        if is_due := bool(self._permits) and time.monotonic() - self._checked_at > HEARTBEAT_S:
            self._checked_at = time.monotonic()
            for call in self._ledger.dead_calls():
                self._give_back(call, Usage())
        if not (free or self._used or is_due):
            return
        used, self._used = self._used, []
        permits, wait_s = self._deal(used, [one.wants[index].tokens for one, index in free])
        if free:
            self._nap_s = min(max(wait_s, _SHORTEST_NAP_S), _LONGEST_NAP_S)
        for (waiting, index), permit in zip(free, permits, strict=False):
            reply = self._ledger.lease(waiting.wants[index], waiting.owner)
            if isinstance(reply, Permit):
                self._permits[reply.call] = permit
            else:
                self._used.append((permit, Usage(sent=False)))
            if reply != "busy":
                waiting.decided.append((index, reply))

    def _give_back(self, call: int, usage: Usage) -> None:
        permit = self._permits.pop(call, None)
        if permit is not None:
            self._used.append((permit, usage))

    def _readable(self, error: BaseException) -> Any:
        """DiskFull where that is why SQLite failed, else the error itself."""
        if isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            return DiskFull(full_disk(Path(self._path)))
        return error


@dataclass(frozen=True)
class _Message:
    """Work on the ledger, and who sent it ("" for the driver)."""

    owner: str
    work: Callable[[Ledger], Any]
    done: Future[Any]


class _Waiting:
    """Requests of an owner that wait for a permit."""

    def __init__(
        self, owner: str, wants: list[Want], replies: Future[list[tuple[int, Reply]]]
    ) -> None:
        self.owner, self.wants, self.replies = owner, wants, replies
        self.decided: list[tuple[int, Reply]] = []
        self.until = time.monotonic() + _LONGEST_WAIT_S
