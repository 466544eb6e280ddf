"""The journal of model calls as a Ray actor: one writer on the driver's machine for all workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tasks.llm.journal import Journal, NoJournal


@contextmanager
def open_journal(explainer: Any, out: Path) -> Iterator[Journal]:
    """The journal below `out` for explainers that ask a model; they say so with `asks_model`."""
    if not getattr(explainer, "asks_model", False):
        yield NoJournal()
        return
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = _RemoteJournal.options(scheduling_strategy=here).remote(out / "journal.sqlite")
    try:
        yield RemoteJournal(actor)
    finally:
        ray.get(actor.close.remote())
        ray.kill(actor)


@dataclass(frozen=True)
class RemoteJournal:
    """A `Journal` that forwards every call to the actor that holds the file."""

    actor: Any

    async def answer(self, request_hash: str) -> str | None:
        """See `Journal`."""
        return await self.actor.answer.remote(request_hash)

    async def intend(self, request_hash: str, model: str) -> None:
        """See `Journal`."""
        await self.actor.intend.remote(request_hash, model)

    async def withdraw(self, request_hash: str) -> None:
        """See `Journal`."""
        await self.actor.withdraw.remote(request_hash)

    async def settle(self, request_hash: str, answer: str) -> None:
        """See `Journal`."""
        await self.actor.settle.remote(request_hash, answer)

    async def unsettled(self) -> int:
        """See `Journal`."""
        return await self.actor.unsettled.remote()


class _JournalActor:
    def __init__(self, path: Path) -> None:
        from tasks.llm.journal import SqliteJournal

        self._journal = SqliteJournal(path)

    async def answer(self, request_hash: str) -> str | None:
        return await self._journal.answer(request_hash)

    async def intend(self, request_hash: str, model: str) -> None:
        await self._journal.intend(request_hash, model)

    async def withdraw(self, request_hash: str) -> None:
        await self._journal.withdraw(request_hash)

    async def settle(self, request_hash: str, answer: str) -> None:
        await self._journal.settle(request_hash, answer)

    async def unsettled(self) -> int:
        return await self._journal.unsettled()

    async def close(self) -> None:
        self._journal.close()


_RemoteJournal: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_JournalActor)
