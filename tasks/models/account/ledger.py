"""The account's SQLite file: answers, what calls cost, and the budget. Pure SQL, one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuron_atlas.tasks.models.account.messages import (
    LEASE_S,
    Permit,
    Refusal,
    Result,
    Stored,
    Want,
)
from neuron_atlas.tasks.models.account.received import ReceivedFiles, received_folder
from neuron_atlas.tasks.models.account.tables import open_database
from neuron_atlas.tasks.models.account.tally import Tally

_ROUNDING_USD = 1e-9
_LONGEST_CALL_S = 3600.0
_EARLIER = "owners of an account that was restarted"


class Ledger:
    """Answers, calls and budget of one purpose (explain, simulate), over all runs.

    Not thread-safe: make it and use it in one thread, its methods within `transaction`. The file
    must be on a local disk, since SQLite's write-ahead log does not work on network file systems.

    path: the file, or ":memory:". budget_usd: the most that all calls of the purpose may cost, None
    for no limit.
    """

    def __init__(
        self,
        path: Path | Literal[":memory:"],
        purpose: str,
        budget_usd: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.purpose, self._clock = purpose, clock
        self._by_request: dict[str, _Lease] = {}
        self._by_call: dict[int, _Lease] = {}
        self._heartbeats: dict[str, float] = {}
        self._final: dict[str, str] = {}
        self._stop_reason = ""
        self._received = ReceivedFiles(received_folder(path, purpose))
        self.database = open_database(path)
        spent, lost = self.database.execute(
            "SELECT coalesce(sum(coalesce(usd, 0)), 0), coalesce(sum(outcome IS NULL), 0)"
            " FROM calls WHERE purpose = ?",
            (purpose,),
        ).fetchone()
        self.tally = Tally(budget_usd, float(spent), lost=int(lost))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything done within to disk, or nothing."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise

    def take_over(self, *, has_callers: bool) -> None:
        """Go on where an earlier account ended: store what its callers received since.

        has_callers: it died while its callers go on, so they get time to settle.
        """
        with self.transaction():
            if has_callers:
                self.beat(_EARLIER)
                for call, request_hash, usd in self.database.execute(
                    "SELECT call, request_hash, coalesce(usd, 0) FROM calls"
                    " WHERE purpose = ? AND outcome IS NULL AND ended_at IS NULL AND begun_at > ?",
                    (self.purpose, time.time() - _LONGEST_CALL_S),
                ).fetchall():
                    self.hold_again(call, request_hash, usd, _EARLIER)
            self._read_received()
        self._received.remove_delivered()
        # What was received is of calls of earlier runs.
        total = self.tally
        self.tally = Tally(total.budget_usd, total.spent_usd, total.held_usd, total.lost)

    def beat(self, owner: str, *, forever: bool = False) -> None:
        """Note a heartbeat of an owner. forever: it needs no other one."""
        self._heartbeats[owner] = float("inf") if forever else self._clock()

    def look_up(self, request_hash: str) -> str | None:
        """Return the answer (JSON) to a request, or None."""
        row = self.database.execute(
            "SELECT answer FROM answers WHERE request_hash = ?", (request_hash,)
        ).fetchone()
        if row is None:
            return self._final.get(request_hash)
        self.tally.replayed += 1
        return row[0]

    def decide(self, want: Want) -> Stored | Refusal | Literal["free", "busy"]:
        """Say whether a request may be sent.

        busy: its answer is on the way, or calls under way hold the money that it needs.
        """
        if self._stop_reason:
            return Refusal("stopped", self._stop_reason)
        lease = self._by_request.get(want.request_hash)
        if lease is not None and self._is_alive(lease.owner):
            return "busy"
        if want.usd > self.tally.left_usd() + _ROUNDING_USD:
            self._expire_dead()
        if want.usd <= self.tally.left_usd() + _ROUNDING_USD:
            return "free"
        if (answer := self.look_up(want.request_hash)) is not None:
            return Stored(answer)
        unspent = self.tally.left_usd() + self.tally.held_usd
        if want.usd <= unspent + _ROUNDING_USD:
            return "busy"
        return Refusal(
            "budget",
            f"the budget of {self.tally.budget_usd:g} USD has {max(unspent, 0):.4f} USD left, and "
            f"the call could cost {want.usd:.4f}",
        )

    def lease(self, want: Want, owner: str) -> Permit | Stored | Refusal | Literal["busy"]:
        """Reserve the most that a call can cost; the permit counts once it is committed."""
        decision = self.decide(want)
        if decision != "free":
            return decision
        answer = self.look_up(want.request_hash)
        if answer is None and self._has_lost_call(want.request_hash):
            self._read_received()  # It may have been answered before its caller died.
            answer = self.look_up(want.request_hash)
        if answer is not None:
            return Stored(answer)
        lease = self._by_request.get(want.request_hash)
        if lease is not None:
            self._count_as_spent(lease)
        call = self.database.execute(
            "INSERT INTO calls (request_hash, purpose, model, begun_at, usd)"
            " VALUES (?, ?, ?, ?, ?)",
            (want.request_hash, self.purpose, want.model, time.time(), want.usd),
        ).lastrowid
        assert call is not None
        self.tally.requests += 1
        self._hold(call, want.request_hash, want.usd, owner)
        return Permit(call)

    def hold_again(self, call: int, request_hash: str, usd: float, owner: str) -> None:
        """Hold a call of an earlier process, which counted as lost when the file was opened."""
        if call not in self._by_call:
            self.tally.spent_usd -= usd
            self.tally.lost -= 1
            self._hold(call, request_hash, usd, owner)

    def settle(self, result: Result) -> None:
        """Store how a call ended: its answer for ever (the first one stays), and its cost.

        Settling a call again does nothing. Raises KeyError for a call that was never leased.
        """
        self._stop_reason = self._stop_reason or result.stop
        row = self.database.execute(
            "SELECT request_hash, model, coalesce(usd, 0), outcome FROM calls WHERE call = ?",
            (result.call,),
        ).fetchone()
        if row is None:
            raise KeyError(f"call {result.call} was settled without having been leased")
        request_hash, model, worst_usd, outcome = row
        if outcome is not None:
            return
        self.tally.add(result)
        if result.answer is not None:
            self.database.execute(
                "INSERT INTO answers (request_hash, model, answer, settled_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (request_hash) DO NOTHING",
                (request_hash, model, result.answer, time.time()),
            )
        elif result.maybe_billed:
            if (lease := self._by_call.get(result.call)) is not None:
                self._count_as_spent(lease)
            return
        usd = (result.usd or 0.0) if result.answer is not None else 0.0
        self.database.execute(
            "UPDATE calls SET ended_at = ?, outcome = ?, usd = ? WHERE call = ?",
            (time.time(), result.status, usd, result.call),
        )
        lease = self._by_call.get(result.call)
        if lease is not None:
            self._release(lease)
        else:  # It had been given up as lost.
            self.tally.spent_usd -= worst_usd
            self.tally.lost -= 1
        self.tally.spent_usd += usd

    def set_final(self, request_hash: str, answer: str) -> None:
        """Make this the answer (JSON) to a request for the rest of this run only."""
        self._final[request_hash] = answer

    def dead_calls(self) -> list[int]:
        """Return the leased calls of owners without a heartbeat."""
        return [lease.call for lease in self._by_call.values() if not self._is_alive(lease.owner)]

    def leases_of(self, owner: str) -> list[int]:
        """Return the calls that an owner has leased and not settled."""
        return [lease.call for lease in self._by_call.values() if lease.owner == owner]

    def _hold(self, call: int, request_hash: str, usd: float, owner: str) -> None:
        lease = _Lease(call, request_hash, usd, owner)
        self._by_call[call] = self._by_request[request_hash] = lease
        self.tally.held_usd += usd

    def _has_lost_call(self, request_hash: str) -> bool:
        row = self.database.execute(
            "SELECT 1 FROM calls WHERE request_hash = ? AND outcome IS NULL AND ended_at IS NULL",
            (request_hash,),
        ).fetchone()
        return row is not None

    def _read_received(self) -> None:
        for result in self._received.unread():
            row = self.database.execute(
                "SELECT request_hash FROM calls WHERE call = ?", (result.call,)
            ).fetchone()
            if row == (result.request_hash,):  # Else it is of a file that is no more.
                self.settle(result)

    def _is_alive(self, owner: str) -> bool:
        return self._clock() - self._heartbeats.get(owner, float("-inf")) < LEASE_S

    def _expire_dead(self) -> None:
        dead = self.dead_calls()
        if dead:
            self._read_received()
        for call in dead:
            if call in self._by_call:
                self._count_as_spent(self._by_call[call])

    def _count_as_spent(self, lease: _Lease) -> None:
        """End a call without a result: it may have been billed."""
        self.database.execute(
            "UPDATE calls SET ended_at = ? WHERE call = ?", (time.time(), lease.call)
        )
        self._release(lease)
        self.tally.spent_usd += lease.usd
        self.tally.lost += 1

    def _release(self, lease: _Lease) -> None:
        del self._by_call[lease.call]
        self.tally.held_usd -= lease.usd
        if self._by_request.get(lease.request_hash) is lease:
            del self._by_request[lease.request_hash]


@dataclass(frozen=True, slots=True, eq=False)
class _Lease:
    """A call that may be under way, and the money held for it."""

    call: int
    request_hash: str
    usd: float
    owner: str
