"""A journal in one SQLite file, with a budget: one writer, every commit on the disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from neuron_atlas.tasks.models.journal import Claim, Spent, Tally
from neuron_atlas.tasks.models.journal_writer import Writer
from neuron_atlas.tasks.models.limits import LEASE_S
from neuron_atlas.tasks.models.outbox import Outboxes, outbox_folder
from neuron_atlas.tasks.models.tally import RunTally

T = TypeVar("T")

_ROUNDING_USD = 1e-9
_LONGEST_CALL_S = 3600.0
_BEFORE = "callers of the journal that died"


class SqliteJournal:
    """A journal in one SQLite file: write-ahead log, every commit synced to the disk.

    It may be used from any thread and any event loop (see `Writer`). The file belongs on a local
    disk: SQLite's write-ahead log does not work on network file systems.

    purpose: what the calls are for. budget_usd: the most that its calls may cost over all runs,
    None for no limit. has_callers: it takes the place of one that died while calls were under way.
    """

    def __init__(
        self,
        path: Path | str,
        purpose: str = "explain",
        budget_usd: float | None = None,
        *,
        has_callers: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._purpose, self._budget, self._clock = purpose, budget_usd, clock
        self._claims: dict[str, Held] = {}
        self._calls: dict[int, Held] = {}
        self._held_usd = 0.0
        self._heard_of: dict[str, float] = {}
        self._ruled: dict[str, str] = {}
        self._stopped: str | None = None
        self._run = RunTally()
        self._outboxes = Outboxes(outbox_folder(Path(path), purpose))
        self._writer = Writer(Path(path), lambda database: self._open(database, has_callers))

    async def answer(self, request_hash: str) -> str | None:
        """See `Journal`."""
        return await self._do(lambda: self._answer(request_hash))

    async def claim(self, request_hash: str, model: str, worst_usd: float, owner: str) -> Claim:
        """See `Journal`."""
        return await self._do(lambda: self._claim(request_hash, model, worst_usd, owner))

    async def settle(self, call: int, answer: str, spent: Spent) -> None:
        """See `Journal`."""
        await self._do(lambda: self._settle(call, answer, spent))

    async def fail(self, call: int, status: str, billed: bool) -> None:
        """See `Journal`."""
        await self._do(lambda: self._fail(call, status, billed))

    async def beat(self, owner: str) -> None:
        """See `Journal`."""
        await self._do(lambda: self._beat(owner))

    async def stop(self, why: str) -> None:
        """See `Journal`."""
        await self._do(lambda: self._stop(why))

    async def tally(self) -> Tally:
        """See `Journal`."""
        return await self._do(self._tally)

    def close(self) -> None:
        """Finish what is under way and close the file."""
        self._writer.close()

    async def _do(self, work: Callable[[], T]) -> T:
        return await self._writer.do(work)

    def _open(self, database: sqlite3.Connection, has_callers: bool) -> None:
        self._database = database
        self._load()
        if has_callers:
            self._hold_for_callers()
        self._take_over()

    def _load(self) -> None:
        spent, lost = self._database.execute(
            "SELECT coalesce(sum(coalesce(usd, 0)), 0), coalesce(sum(outcome IS NULL), 0)"
            " FROM calls WHERE purpose = ?",
            (self._purpose,),
        ).fetchone()
        self._spent, self._lost = float(spent), int(lost)

    def _take_over(self) -> None:
        """Settle what was answered while no journal was open, or by those who died since."""
        self._database.execute("BEGIN IMMEDIATE")
        self._absorb()
        self._database.execute("COMMIT")
        self._outboxes.clear()
        self._run = RunTally()  # They were no calls of this run.

    def _absorb(self) -> None:
        for told in self._outboxes.unread():
            row = self._database.execute(
                "SELECT request_hash FROM calls WHERE call = ?", (told.call,)
            ).fetchone()
            if row == (told.request_hash,):  # Else it is of a journal that is no more.
                self._settle(told.call, told.answer, told.spent)

    def _hold_for_callers(self) -> None:
        """Those that are calling get the time to tell their results before their claims lapse."""
        self._beat(_BEFORE)
        open_calls = self._database.execute(
            "SELECT call, request_hash, coalesce(usd, 0) FROM calls"
            " WHERE purpose = ? AND outcome IS NULL AND ended_at IS NULL AND begun_at > ?",
            (self._purpose, time.time() - _LONGEST_CALL_S),
        )
        for call, request_hash, usd in open_calls.fetchall():
            self._hold_again(call, request_hash, usd, _BEFORE)

    def _hold_again(self, call: int, request_hash: str, usd: float, owner: str) -> None:
        """Take a call that was counted as lost for one that is under way."""
        if call not in self._calls:
            self._spent -= usd
            self._lost -= 1
            self._hold(Held(call, request_hash, usd, owner))

    def _answer(self, request_hash: str) -> str | None:
        row = self._database.execute(
            "SELECT answer FROM answers WHERE request_hash = ?", (request_hash,)
        ).fetchone()
        if row is None:
            return self._ruled.get(request_hash)
        self._run.replayed += 1
        return row[0]

    def _claim(self, request_hash: str, model: str, worst_usd: float, owner: str) -> Claim:
        if self._stopped is not None:
            return Claim("stopped", told=self._stopped)
        if owner not in self._heard_of:
            self._beat(owner)
        kept = self._answer(request_hash)
        held = self._claims.get(request_hash)
        if kept is None and held is not None and self._lives(held.owner):
            return Claim("busy")
        if kept is None and self._is_without_result(request_hash):
            self._absorb()  # It may have been answered before its asker died.
            kept = self._answer(request_hash)
        if kept is not None:
            return Claim("answered", told=kept)
        if held is not None:
            self._forget(held)
        refused = self._afford(worst_usd)
        if refused is not None:
            return refused
        call = self._database.execute(
            "INSERT INTO calls (request_hash, purpose, model, begun_at, usd)"
            " VALUES (?, ?, ?, ?, ?)",
            (request_hash, self._purpose, model, time.time(), worst_usd),
        ).lastrowid
        assert call is not None
        self._run.requests += 1
        self._hold(Held(call, request_hash, worst_usd, owner))
        return Claim("granted", call)

    def _is_without_result(self, request_hash: str) -> bool:
        return bool(
            self._database.execute(
                "SELECT 1 FROM calls"
                " WHERE request_hash = ? AND outcome IS NULL AND ended_at IS NULL",
                (request_hash,),
            ).fetchone()
        )

    def _afford(self, worst_usd: float) -> Claim | None:
        """None where the budget has room for a call that costs at most so much."""
        if self._budget is None:
            return None
        if worst_usd > self._budget - self._spent - self._held_usd + _ROUNDING_USD:
            self._forget_the_dead()
        room = self._budget - self._spent + _ROUNDING_USD
        if worst_usd > room:
            return Claim(
                "over_budget",
                told=f"the budget of {self._budget:g} USD has {max(room, 0):.4f} USD left, and "
                f"the call could cost {worst_usd:.4f}",
            )
        return Claim("busy") if worst_usd > room - self._held_usd else None

    def _lives(self, owner: str) -> bool:
        return self._clock() - self._heard_of.get(owner, float("-inf")) < LEASE_S

    def _forget_the_dead(self) -> None:
        dead = [held for held in self._calls.values() if not self._lives(held.owner)]
        if dead:
            self._absorb()
        for held in dead:
            if held.call in self._calls:
                self._forget(held)

    def _hold(self, held: Held) -> None:
        self._calls[held.call] = self._claims[held.request_hash] = held
        self._held_usd += held.worst_usd

    def _settle(self, call: int, answer: str, spent: Spent) -> None:
        row = self._database.execute(
            "SELECT request_hash, model, coalesce(usd, 0), outcome FROM calls WHERE call = ?",
            (call,),
        ).fetchone()
        if row is None:
            raise KeyError(f"call {call} was answered without having been claimed")
        request_hash, model, worst_usd, outcome = row
        if outcome is not None:
            return  # Told twice, by a caller that did not hear that it had been heard.
        now = time.time()
        self._database.execute(
            "INSERT INTO answers (request_hash, model, answer, settled_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (request_hash) DO NOTHING",
            (request_hash, model, answer, now),
        )
        self._end(call, spent.status, spent.usd or 0.0, worst_usd)
        self._run.add(spent)

    def _fail(self, call: int, status: str, billed: bool) -> None:
        row = self._database.execute(
            "SELECT coalesce(usd, 0), outcome FROM calls WHERE call = ?", (call,)
        ).fetchone()
        if row is None:
            raise KeyError(f"call {call} failed without having been claimed")
        if row[1] is not None:
            return
        self._run.outcomes[status] += 1
        if not billed:
            self._end(call, status, 0.0, row[0])
        elif (held := self._calls.get(call)) is not None:
            self._forget(held)

    def _end(self, call: int, outcome: str, usd: float, worst_usd: float) -> None:
        self._database.execute(
            "UPDATE calls SET ended_at = ?, outcome = ?, usd = ? WHERE call = ?",
            (time.time(), outcome, usd, call),
        )
        held = self._calls.get(call)
        if held is not None:
            self._let_go(held)
        else:  # Had been given up for lost.
            self._spent -= worst_usd
            self._lost -= 1
        self._spent += usd

    def _forget(self, held: Held) -> None:
        """A call without a result: it may have been billed, so it counts as spent."""
        self._database.execute(
            "UPDATE calls SET ended_at = ? WHERE call = ?", (time.time(), held.call)
        )
        self._let_go(held)
        self._spent += held.worst_usd
        self._lost += 1

    def _let_go(self, held: Held) -> None:
        del self._calls[held.call]
        self._held_usd -= held.worst_usd
        if self._claims.get(held.request_hash) is held:
            del self._claims[held.request_hash]

    def _beat(self, owner: str) -> None:
        self._heard_of[owner] = self._clock()

    def _stop(self, why: str) -> None:
        self._stopped = self._stopped or why

    def _tally(self) -> Tally:
        return self._run.tally(self._budget, self._spent, self._held_usd, self._lost)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A claim: an intent of someone alive."""

    call: int
    request_hash: str
    worst_usd: float
    owner: str
