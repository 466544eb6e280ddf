"""Batches in an account: which requests were handed in together, and what is open."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuron_atlas.tasks.models.account.ledger import Ledger
from neuron_atlas.tasks.models.account.messages import Permit, Refusal, Result, Want
from neuron_atlas.tasks.models.answer import Answer, to_json

if TYPE_CHECKING:
    from neuron_atlas.tasks.models.account.account import LocalAccount
    from neuron_atlas.tasks.models.request_file import FiledRequest

_NOT_TRIED = ("failed/failed", "unsent", "unusable")
"""Statuses of calls that the provider did not work on: it refused their batch as a whole (such as
by a full queue), they were never sent, or the account could not be used."""


@dataclass(frozen=True)
class BatchedCall:
    """A call of a batch: its number, its model, the most that it can cost (USD)."""

    call: int
    model: str
    usd: float


@dataclass(frozen=True)
class OpenBatch:
    """A batch without its result. input_file, provider_id: None until the provider gave them."""

    name: str
    input_file: str | None
    provider_id: str | None
    calls: dict[str, BatchedCall]
    """By the request's hash."""


class Batches:
    """The batches of one purpose. They hold their money through any number of restarts."""

    def __init__(self, account: LocalAccount) -> None:
        self._account = account

    async def begin(
        self, name: str, provider_account: str, model: str, requests: Sequence[FiledRequest]
    ) -> list[FiledRequest]:
        """Lease the calls of a batch; return the requests that may be sent.

        The other requests were answered meanwhile, are under way, or are over the budget, which is
        then their outcome for this run.
        """

        def begin(ledger: Ledger) -> list[FiledRequest]:
            owner = _owner(ledger, name)
            leased = []
            for request in requests:
                reply = ledger.lease(Want(request.request_hash, model, 0, request.usd), owner)
                if isinstance(reply, Permit):
                    leased.append(request)
                    ledger.database.execute(
                        "INSERT INTO batched (batch, request_hash, call) VALUES (?, ?, ?)",
                        (name, request.request_hash, reply.call),
                    )
                elif isinstance(reply, Refusal) and reply.kind == "budget":
                    answer = to_json(Answer("budget", reason=reply.reason))
                    ledger.set_final(request.request_hash, answer)
            if leased:
                ledger.database.execute(
                    "INSERT INTO batches (batch, purpose, account, state, begun_at)"
                    " VALUES (?, ?, ?, 'open', ?)",
                    (name, ledger.purpose, provider_account, time.time()),
                )
            return leased

        return await self._account.do(begin)

    async def note_file(self, name: str, input_file: str) -> None:
        """Store the provider's id of a batch's input."""
        await self._note(name, "input_file", input_file)

    async def note_id(self, name: str, provider_id: str) -> None:
        """Store the provider's id of a batch."""
        await self._note(name, "provider_id", provider_id)

    async def open(self, provider_account: str) -> list[OpenBatch]:
        """Return an account's unsettled batches, oldest first."""
        return await self._account.do(lambda ledger: _open(ledger, provider_account))

    async def end(self, name: str) -> None:
        """Close a batch: its calls without a result may have been billed."""

        def end(ledger: Ledger) -> None:
            for call in _open_calls(ledger, name).values():
                ledger.settle(Result(call.call, "lost", maybe_billed=True))
            ledger.database.execute("UPDATE batches SET state = 'done' WHERE batch = ?", (name,))
            ledger.database.execute("DELETE FROM batched WHERE batch = ?", (name,))

        await self._account.do(end)

    async def set_final(self, request_hash: str, answer: str) -> None:
        """Make this the answer (JSON) to a request for the rest of this run only."""
        await self._account.do(lambda ledger: ledger.set_final(request_hash, answer))

    async def attempts(self, request_hash: str) -> int:
        """Count the calls for a request that the provider may have worked on, over all runs."""
        query = (
            "SELECT count(*) FROM calls WHERE request_hash = ?"
            f" AND (outcome IS NULL OR outcome NOT IN ({', '.join('?' * len(_NOT_TRIED))}))"
        )
        return await self._account.do(
            lambda ledger: ledger.database.execute(query, (request_hash, *_NOT_TRIED)).fetchone()[0]
        )

    async def _note(self, name: str, column: str, value: str) -> None:
        await self._account.do(
            lambda ledger: ledger.database.execute(
                f"UPDATE batches SET {column} = ? WHERE batch = ?", (value, name)
            )
        )


def hold_open_batches(ledger: Ledger) -> None:
    """Hold the money of open batches: their calls are under way, not lost."""
    for batch in _open(ledger, None):
        owner = _owner(ledger, batch.name)
        for request_hash, call in batch.calls.items():
            ledger.hold_again(call.call, request_hash, call.usd, owner)


def _open(ledger: Ledger, provider_account: str | None) -> list[OpenBatch]:
    # Batches without an account are from when a file had only one.
    rows = ledger.database.execute(
        "SELECT batch, input_file, provider_id FROM batches WHERE purpose = ? AND state = 'open'"
        " AND (account IS NULL OR account = coalesce(?, account)) ORDER BY begun_at",
        (ledger.purpose, provider_account),
    ).fetchall()
    return [
        OpenBatch(name, input_file, provider_id, _open_calls(ledger, name))
        for name, input_file, provider_id in rows
    ]


def _open_calls(ledger: Ledger, name: str) -> dict[str, BatchedCall]:
    rows = ledger.database.execute(
        "SELECT batched.request_hash, call, model, coalesce(usd, 0)"
        " FROM batched JOIN calls USING (call) WHERE batch = ? AND outcome IS NULL",
        (name,),
    )
    return {request_hash: BatchedCall(*call) for request_hash, *call in rows}


def _owner(ledger: Ledger, name: str) -> str:
    owner = f"batch {name}"
    ledger.beat(owner, forever=True)  # The provider works on it, whoever else dies.
    return owner
