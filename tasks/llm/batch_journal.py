"""The journal's account of batches: what was handed in together, and what came back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.llm.answer import Answer, to_journal
from tasks.llm.journal import Spent
from tasks.llm.spool import Spooled
from tasks.llm.sqlite_journal import SqliteJournal


@dataclass(frozen=True)
class OpenBatch:
    """A batch without its result. input_file, provider_id: None until the provider told them."""

    name: str
    input_file: str | None
    provider_id: str | None
    calls: dict[str, int]
    """The number of each request's call, by the request's hash."""


class BatchJournal(SqliteJournal):
    """A journal that holds the intents of whole batches, through any number of restarts."""

    async def begin_batch(self, name: str, model: str, spooled: Sequence[Spooled]) -> list[Spooled]:
        """Note the intent to send requests by a batch; those of them that may be sent.

        The others were answered meanwhile, are under way, or are over the budget, which is their
        outcome for this run.
        """
        return await self._do(lambda: self._begin_batch(name, model, spooled))

    async def note_file(self, name: str, input_file: str) -> None:
        """Keep the provider's id of a batch's input."""
        await self._note(name, "input_file", input_file)

    async def note_batch(self, name: str, provider_id: str) -> None:
        """Keep the provider's id of a batch."""
        await self._note(name, "provider_id", provider_id)

    async def open_batches(self) -> list[OpenBatch]:
        """All batches of this purpose whose results have not been settled, first to last."""
        return await self._do(self._open_batches)

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
        """Calls that were ever begun for a request."""
        return await self._do(lambda: self._attempts(request_hash))

    def _begin_batch(self, name: str, model: str, spooled: Sequence[Spooled]) -> list[Spooled]:
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
                "INSERT INTO batches (batch, purpose, state, begun_at) VALUES (?, ?, 'open', ?)",
                (name, self._purpose, time.time()),
            )
        return granted

    async def _note(self, name: str, column: str, value: str) -> None:
        await self._do(
            lambda: self._database.execute(
                f"UPDATE batches SET {column} = ? WHERE batch = ?", (value, name)
            )
        )

    def _open_batches(self) -> list[OpenBatch]:
        rows = self._database.execute(
            "SELECT batch, input_file, provider_id FROM batches"
            " WHERE purpose = ? AND state = 'open' ORDER BY begun_at",
            (self._purpose,),
        ).fetchall()
        return [
            OpenBatch(name, input_file, provider_id, self._open_calls(name))
            for name, input_file, provider_id in rows
        ]

    def _open_calls(self, name: str) -> dict[str, int]:
        return dict(
            self._database.execute(
                "SELECT batched.request_hash, batched.call FROM batched JOIN calls USING (call)"
                " WHERE batch = ? AND outcome IS NULL",
                (name,),
            )
        )

    def _end_batch(self, name: str) -> None:
        for call in self._open_calls(name).values():
            self._fail(call, "lost", billed=True)
        self._database.execute("UPDATE batches SET state = 'done' WHERE batch = ?", (name,))
        self._database.execute("DELETE FROM batched WHERE batch = ?", (name,))

    def _attempts(self, request_hash: str) -> int:
        return self._database.execute(
            "SELECT count(*) FROM calls WHERE request_hash = ?", (request_hash,)
        ).fetchone()[0]

    def _load(self) -> None:
        """What is in an open batch is under way, not lost."""
        super()._load()
        for batch in self._open_batches():
            for request_hash, call in batch.calls.items():
                (usd,) = self._database.execute(
                    "SELECT coalesce(usd, 0) FROM calls WHERE call = ?", (call,)
                ).fetchone()
                self._hold_again(call, request_hash, usd, self._owner_of(batch.name))

    def _owner_of(self, name: str) -> str:
        owner = f"batch {name}"
        self._heard_of[owner] = float("inf")  # The provider works on it, whoever else dies.
        return owner
