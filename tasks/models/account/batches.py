"""Batches in a ledger: the requests of each batch, and the open batches.

An open batch holds its share of the budget through any number of restarts. Use
these functions within a transaction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuron_atlas.tasks.models.account.ledger import Ledger
from neuron_atlas.tasks.models.account.messages import CallResult, LeaseRequest, Permit, Refusal
from neuron_atlas.tasks.models.answer import Answer, to_json

if TYPE_CHECKING:
    from neuron_atlas.tasks.models.request_file import FiledRequest

_NOT_TRIED = ("failed/failed", "unsent", "unusable")
"""Statuses of calls that the provider did not work on: it refused their batch as a whole (such as
by a full queue), they were never sent, or the account could not be used."""


@dataclass(frozen=True)
class BatchedCall:
    """A call of a batch: its number, and the most that it can cost (USD)."""

    call: int
    usd: float


@dataclass(frozen=True)
class OpenBatch:
    """A batch without its result. provider_id: None until the provider gave it."""

    name: str
    provider_id: str | None
    calls: dict[str, BatchedCall]
    """Those without a result, by the request's hash."""


def begin_batch(
    ledger: Ledger, name: str, provider_account: str, model: str, requests: Sequence[FiledRequest]
) -> list[FiledRequest]:
    """Lease the calls of a batch; return the requests that may be sent.

    The other requests have been answered, are under way, or exceed the budget. The latter get the
    status budget for this run.
    """
    leased = []
    for request in requests:
        reply = ledger.lease(
            LeaseRequest(request.request_hash, model, 0, request.usd), _owner(name)
        )
        if isinstance(reply, Permit):
            leased.append(request)
            ledger.database.execute(
                "INSERT INTO batched (batch, request_hash, call) VALUES (?, ?, ?)",
                (name, request.request_hash, reply.call),
            )
        elif isinstance(reply, Refusal) and reply.kind == "budget":
            ledger.set_final(request.request_hash, to_json(Answer("budget", reason=reply.reason)))
    if leased:
        ledger.database.execute(
            "INSERT INTO batches (batch, purpose, account, state, begun_at)"
            " VALUES (?, ?, ?, 'open', ?)",
            (name, ledger.purpose, provider_account, time.time()),
        )
    return leased


def store_batch_id(ledger: Ledger, name: str, provider_id: str) -> None:
    """Store the provider's id of a batch."""
    ledger.database.execute(
        "UPDATE batches SET provider_id = ? WHERE batch = ?", (provider_id, name)
    )


def open_batches(ledger: Ledger, provider_account: str | None = None) -> list[OpenBatch]:
    """Return the unsettled batches of one account, or of all, oldest first."""
    rows = ledger.database.execute(
        "SELECT batch, provider_id FROM batches WHERE purpose = ? AND state = 'open'"
        " AND account = coalesce(?, account) ORDER BY begun_at",
        (ledger.purpose, provider_account),
    ).fetchall()
    return [OpenBatch(name, provider_id, _open_calls(ledger, name)) for name, provider_id in rows]


def hold_open_batches(ledger: Ledger) -> None:
    """Hold the budget of open batches: their calls are under way, not lost."""
    for batch in open_batches(ledger):
        for request_hash, call in batch.calls.items():
            ledger.hold(call.call, request_hash, call.usd, _owner(batch.name))


def end_batch(ledger: Ledger, name: str) -> None:
    """Close a batch: its calls without a result may have been billed."""
    for call in _open_calls(ledger, name).values():
        ledger.settle(CallResult(call.call, "lost", maybe_billed=True))
    ledger.database.execute("UPDATE batches SET state = 'done' WHERE batch = ?", (name,))
    ledger.database.execute("DELETE FROM batched WHERE batch = ?", (name,))


def count_attempts(ledger: Ledger, request_hash: str) -> int:
    """Count the calls for a request that the provider may have worked on, over all runs."""
    query = (
        "SELECT count(*) FROM calls WHERE request_hash = ?"
        f" AND (outcome IS NULL OR outcome NOT IN ({', '.join('?' * len(_NOT_TRIED))}))"
    )
    return ledger.database.execute(query, (request_hash, *_NOT_TRIED)).fetchone()[0]


def _open_calls(ledger: Ledger, name: str) -> dict[str, BatchedCall]:
    rows = ledger.database.execute(
        "SELECT batched.request_hash, call, coalesce(usd, 0)"
        " FROM batched JOIN calls USING (call) WHERE batch = ? AND outcome IS NULL",
        (name,),
    )
    return {request_hash: BatchedCall(*call) for request_hash, *call in rows}


def _owner(name: str) -> str:
    return f"batch {name}"  # Has no heartbeat: the provider works on it even if this process dies.
