"""The journal's account of batches: what was handed in together, and what came back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from neuron_atlas.tasks.models.answer import Answer, to_journal
from neuron_atlas.tasks.models.journal import Spent
from neuron_atlas.tasks.models.spool import Spooled
from neuron_atlas.tasks.models.sqlite_journal import SqliteJournal

_NOT_TRIED = ("failed/failed", "unsent", "unusable")
"""How calls end that the provider has not worked on: their batch was refused as a whole, such as
by a full queue, was never sent, or the account could not be used."""


@dataclass(frozen=True)
class BatchedCall:
    """A call of a batch: its number, the model that is asked, the most that it can cost (USD)."""

    call: int
    model: str
    usd: float


@dataclass(frozen=True)
class OpenBatch:
    """A batch without its result. input_file, provider_id: None until the provider told them."""

    name: str
    input_file: str | None
    provider_id: str | None
    calls: dict[str, BatchedCall]
    """By the request's hash."""


class BatchJournal(SqliteJournal):
    """A journal that holds the intents of whole batches, through any number of restarts."""

    async def begin_batch(
        self, name: str, account: str, model: str, spooled: Sequence[Spooled]
    ) -> list[Spooled]:
        """Note the intent to send requests by a batch; those of them that may be sent.

        account: whose batch it is; only those who name the same one are told of it. The others
        were answered meanwhile, are under way, or are over the budget, which is their outcome for
        this run.
        """
        return await self._do(lambda: self._begin_batch(name, account, model, spooled))

    async def note_file(self, name: str, input_file: str) -> None:
        """Keep the provider's id of a batch's input."""
        await self._note(name, "input_file", input_file)

    async def note_batch(self, name: str, provider_id: str) -> None:
        """Keep the provider's id of a batch."""
        await self._note(name, "provider_id", provider_id)

    async def open_batches(self, account: str) -> list[OpenBatch]:
        """An account's batches of this purpose whose results have not been settled, first to
        last."""
        return await self._do(lambda: self._open_batches(account))

    async def settle_many(
        self, settled: Sequence[tuple[int, str, Spent]], failed: Sequence[tuple[int, str]]
    ) -> None:
        """Keep the answers to calls (JSON), and end those that failed without being billed."""

        def work() -> None:
            for call, answer, spent in settled:
                self._settle(call, answer, spent)
            for call, status in failed:
                self._fail(call, status, billed=False)

        await self._do(work)

    async def end_batch(self, name: str) -> None:
        """Nothing more will come of a batch: its calls without a result may have been billed."""
        await self._do(lambda: self._end_batch(name))

    async def rule(self, request_hash: str, answer: str) -> None:
        """Let this be the answer (JSON) to a request for the rest of this run, and no longer."""
        await self._do(lambda: self._ruled.__setitem__(request_hash, answer))

    async def attempts(self, request_hash: str) -> int:
        """Calls that were ever begun for a request and that the provider may have worked on."""
        return await self._do(lambda: self._attempts(request_hash))

    def _begin_batch(
        self, name: str, account: str, model: str, spooled: Sequence[Spooled]
    ) -> list[Spooled]:
        owner = self._owner_of(name)
        granted = []
        for one in spooled:
            claim = self._claim(one.request_hash, model, one.usd, owner)
            if claim.kind == "granted":
                granted.append(one)
                self._database.execute(
                    "INSERT INTO batched (batch, request_hash, call) VALUES (?, ?, ?)",
                    (name, one.request_hash, claim.call),
                )
            elif claim.kind == "over_budget":
                self._ruled[one.request_hash] = to_journal(Answer("budget", reason=claim.told))
        if granted:
            self._database.execute(
                "INSERT INTO batches (batch, purpose, account, state, begun_at)"
                " VALUES (?, ?, ?, 'open', ?)",
                (name, self._purpose, account, time.time()),
            )
        return granted

    async def _note(self, name: str, column: str, value: str) -> None:
        await self._do(
            lambda: self._database.execute(
                f"UPDATE batches SET {column} = ? WHERE batch = ?", (value, name)
            )
        )

    def _open_batches(self, account: str | None) -> list[OpenBatch]:
        # Those without an account are of a time when a journal had only one.
        rows = self._database.execute(
            "SELECT batch, input_file, provider_id FROM batches"
            " WHERE purpose = ? AND state = 'open'"
            " AND (account IS NULL OR account = coalesce(?, account)) ORDER BY begun_at",
            (self._purpose, account),
        ).fetchall()
        return [
            OpenBatch(name, input_file, provider_id, self._open_calls(name))
            for name, input_file, provider_id in rows
        ]

    def _open_calls(self, name: str) -> dict[str, BatchedCall]:
        rows = self._database.execute(
            "SELECT batched.request_hash, call, model, coalesce(usd, 0)"
            " FROM batched JOIN calls USING (call) WHERE batch = ? AND outcome IS NULL",
            (name,),
        )
        return {request_hash: BatchedCall(*call) for request_hash, *call in rows}

    def _end_batch(self, name: str) -> None:
        for call in self._open_calls(name).values():
            self._fail(call.call, "lost", billed=True)
        self._database.execute("UPDATE batches SET state = 'done' WHERE batch = ?", (name,))
        self._database.execute("DELETE FROM batched WHERE batch = ?", (name,))

    def _attempts(self, request_hash: str) -> int:
        return self._database.execute(
            "SELECT count(*) FROM calls WHERE request_hash = ?"
            f" AND (outcome IS NULL OR outcome NOT IN ({', '.join('?' * len(_NOT_TRIED))}))",
            (request_hash, *_NOT_TRIED),
        ).fetchone()[0]

    def _load(self) -> None:
        """What is in an open batch is under way, not lost."""
        super()._load()
        for batch in self._open_batches(None):
            owner = self._owner_of(batch.name)
            for request_hash, call in batch.calls.items():
                self._hold_again(call.call, request_hash, call.usd, owner)

    def _owner_of(self, name: str) -> str:
        owner = f"batch {name}"
        self._heard_of[owner] = float("inf")  # The provider works on it, whoever else dies.
        return owner
