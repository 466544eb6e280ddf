"""The account's SQLite file: answers, what calls cost, and the budget. Pure SQL."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from neuron_atlas.tasks.artifacts.full_disk import raise_if_disk_full
from neuron_atlas.tasks.models.account.corrections import Corrections
from neuron_atlas.tasks.models.account.features import update_features
from neuron_atlas.tasks.models.account.lease import Lease
from neuron_atlas.tasks.models.account.messages import (
    LEASE_S,
    CallResult,
    FeatureReport,
    LeaseRequest,
    Permit,
    Refusal,
    StoredAnswer,
    Usage,
)
from neuron_atlas.tasks.models.account.notices import Notices
from neuron_atlas.tasks.models.account.received import ReceivedFiles, received_folder
from neuron_atlas.tasks.models.account.tables import open_database, totals
from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.tasks.models.negotiation import ServerFeatures

_ROUNDING_USD = 1e-9
_LONGEST_CALL_S = 3600.0
_EARLIER = "owners of an account that was restarted"


class Ledger:
    """Answers, calls and budget of one purpose (explain, simulate), over all runs.

    Use its methods within `transaction`, but for `tally` and `close`. The file must be on a local
    disk, since SQLite's write-ahead log does not work on network file systems.

    path: the file, None to keep it in memory. budget_usd: the most that all calls of the purpose
    may cost, None for no limit.

    Attributes: received_folder: see `Account`. heartbeats: when each owner was last alive, the
    oldest owner first. used: the usage of ended calls, by permit; the account
    takes it from here.
    """

    def __init__(
        self,
        path: Path | None,
        purpose: str,
        budget_usd: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.purpose, self._path, self._clock = purpose, path or Path(":memory:"), clock
        self.used: list[tuple[int, Usage]] = []
        self._lock = threading.Lock()
        self._leases: dict[int, Lease] = {}
        self._by_request: dict[str, Lease] = {}
        self.heartbeats: dict[str, float] = {}
        self._final: dict[str, str] = {}
        self._stop_reason = ""
        self.received_folder = received_folder(path, purpose)
        self._received = ReceivedFiles(self.received_folder)
        self._budget_usd = float("inf") if budget_usd is None else budget_usd
        self._counts = Tally(budget_usd)
        self.notices = Notices(self._clock)
        with raise_if_disk_full(self._path):
            self.database = open_database(self._path)
        self.corrections = Corrections(self.database, purpose)
        self._usd, self._n_open = totals(self.database, purpose)

    @contextmanager
    def transaction(self) -> Iterator[Ledger]:
        """Commit all changes made inside to disk, or none. Holds a lock: one thread at a time."""
        with self._lock, raise_if_disk_full(self._path), self.database:
            self.database.execute("BEGIN IMMEDIATE")
            yield self

    def take_over(self, *, has_callers: bool) -> None:
        """Continue after an earlier account: store the answers that its callers received since.

        has_callers: the earlier account died but its callers still run, so they get time to settle.
        """
        if has_callers:
            self.heartbeat(_EARLIER)
            for call, request_hash, usd in self.database.execute(
                "SELECT call, request_hash, coalesce(usd, 0) FROM calls"
                " WHERE purpose = ? AND outcome IS NULL AND ended_at IS NULL AND begun_at > ?",
                (self.purpose, time.time() - _LONGEST_CALL_S),
            ).fetchall():
                self.hold(call, request_hash, usd, _EARLIER)
        self._read_received()
        self._counts = Tally(self._counts.budget_usd)  # The calls so far are of earlier runs.

    def close(self) -> None:
        """Store the answers that callers received, and close the file."""
        with self.transaction():
            self._read_received()
        self._received.remove()
        self.database.close()

    def heartbeat(self, owner: str) -> None:
        """Note a heartbeat of an owner, and end the calls of owners whose heartbeat has stopped."""
        self.heartbeats[owner] = now = self._clock()
        dead = {one for one, at in self.heartbeats.items() if now - at >= LEASE_S}
        if not dead:
            return
        for one in dead:
            del self.heartbeats[one]
        if any(lease.owner in dead for lease in self._leases.values()):
            self._read_received()
        for lease in list(self._leases.values()):
            if lease.owner in dead:
                self._count_as_spent(lease, Usage())

    def look_up(self, request_hash: str) -> str | None:
        """Return the answer (JSON) to a request, or None."""
        row = self.database.execute(
            "SELECT answer FROM answers WHERE request_hash = ?", (request_hash,)
        ).fetchone()
        if row is None:
            return self._final.get(request_hash)
        self._counts.replayed += 1
        return row[0]

    def update_features(self, report: FeatureReport) -> ServerFeatures:
        """Store what a caller found out about a server; return all that is known of it."""
        return update_features(self.database, report)

    def corrected(self, want: LeaseRequest) -> LeaseRequest:
        """Return a request with the most that it can cost, by what earlier calls cost."""
        return self.corrections.apply(want)

    def decide(self, want: LeaseRequest) -> StoredAnswer | Refusal | Literal["free", "busy"]:
        """Return whether a request may be sent: its stored answer, a refusal, free or busy.

        busy: its answer is on the way, or calls under way hold the budget that it needs. The most
        that the request can cost is corrected (see `corrected`).
        """
        want = self.corrected(want)
        if self._stop_reason:
            return Refusal("stopped", self._stop_reason)
        if want.request_hash in self._by_request:
            return "busy"
        left_usd = self._budget_usd - self._usd + _ROUNDING_USD
        if want.usd <= left_usd:
            return "free"
        if (answer := self.look_up(want.request_hash)) is not None:
            return StoredAnswer(answer)
        left_usd += self._held_usd()
        if want.usd <= left_usd:
            return "busy"
        return Refusal(
            "budget",
            f"the budget of {self._budget_usd:g} USD has {max(left_usd, 0):.4f} USD left, and "
            f"the call could cost {want.usd:.4f}",
        )

    def lease(
        self, want: LeaseRequest, owner: str, permit: int = 0
    ) -> Permit | StoredAnswer | Refusal | Literal["busy"]:
        """Reserve the most that a call can cost; see `decide`.

        permit: the permit of the rate limits, 0 for none; returned if the request is not sent.
        """
        reply: StoredAnswer | Refusal | Literal["free", "busy"] = self.decide(want)
        if reply == "free":
            answer = self.look_up(want.request_hash)
            if answer is None and self._has_lost_call(want.request_hash):
                self._read_received()  # It may have been answered before its caller died.
                answer = self.look_up(want.request_hash)
            if answer is None:
                return self._begin(self.corrected(want), owner, permit)
            reply = StoredAnswer(answer)
        self.used.append((permit, Usage(sent=False)))
        return reply

    def hold(
        self,
        call: int,
        request_hash: str,
        usd: float,
        owner: str,
        permit: int = 0,
        factor: float = 1.0,
    ) -> None:
        """Treat a call as under way until its owner settles it or dies. factor: the correction of
        its reservation."""
        if call not in self._leases:
            lease = Lease(call, request_hash, usd, owner, permit, factor)
            self._leases[call] = self._by_request[request_hash] = lease

    def settle(self, result: CallResult) -> None:
        """Store the result of a call: its cost, and its answer unless there is one already.

        Settling a call again does nothing. Raises KeyError for a call that was never leased.
        """
        self._stop_reason = self._stop_reason or result.stop
        row = self.database.execute(
            "SELECT request_hash, model, coalesce(usd, 0), outcome FROM calls WHERE call = ?",
            (result.call,),
        ).fetchone()
        if row is None:
            raise KeyError(f"call {result.call} was settled without having been leased")
        request_hash, model, max_usd, outcome = row
        if outcome is not None:
            return
        self._counts.add(result)
        self.notices.add_result(result, model)
        lease = self._leases.get(result.call)
        if result.answer is None and result.maybe_billed:
            if lease is not None:
                self._count_as_spent(lease, result.usage)
            return
        usd = 0.0
        if result.answer is not None:
            usd = max(result.usd or 0.0, 0.0)
            factor = 1.0 if lease is None else lease.factor
            if notice := self.corrections.learn(model, usd, max_usd, factor):
                self.notices.add(notice)
            self.database.execute(
                "INSERT INTO answers (request_hash, model, answer, settled_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (request_hash) DO NOTHING",
                (request_hash, model, result.answer, time.time()),
            )
        self.database.execute(
            "UPDATE calls SET ended_at = ?, outcome = ?, usd = ? WHERE call = ?",
            (time.time(), result.status, usd, result.call),
        )
        self._usd = self._usd - max_usd + usd
        self._n_open -= 1
        if lease is not None:
            self._release(lease, result.usage)

    def set_final(self, request_hash: str, answer: str) -> None:
        """Make this the answer (JSON) to a request for the rest of this run only."""
        self._final[request_hash] = answer

    def tally(self) -> Tally:
        """Return the totals so far."""
        with self._lock:
            held_usd = self._held_usd()
            return replace(
                copy.deepcopy(self._counts),
                notices=list(self.notices.lines),
                spent_usd=self._usd - held_usd,
                held_usd=held_usd,
                lost=self._n_open - len(self._leases),
            )

    def _begin(self, want: LeaseRequest, owner: str, permit: int) -> Permit:
        call = self.database.execute(
            "INSERT INTO calls (request_hash, purpose, model, begun_at, usd)"
            " VALUES (?, ?, ?, ?, ?)",
            (want.request_hash, self.purpose, want.model, time.time(), want.usd),
        ).lastrowid
        assert call is not None
        self._usd += want.usd
        self._n_open += 1
        self._counts.requests += 1
        factor = self.corrections.factor(want.model)
        self.hold(call, want.request_hash, want.usd, owner, permit, factor)
        return Permit(call)

    def _held_usd(self) -> float:
        return sum(lease.usd for lease in self._leases.values())

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
            if row == (result.request_hash,):  # Else it belongs to a deleted account file.
                self.settle(result)

    def _count_as_spent(self, lease: Lease, usage: Usage) -> None:
        """End a call without a result: it may have been billed."""
        self.database.execute(
            "UPDATE calls SET ended_at = ? WHERE call = ?", (time.time(), lease.call)
        )
        self._release(lease, usage)

    def _release(self, lease: Lease, usage: Usage) -> None:
        del self._leases[lease.call]
        if self._by_request.get(lease.request_hash) is lease:
            del self._by_request[lease.request_hash]
        self.used.append((lease.permit, usage))
