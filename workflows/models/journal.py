"""The journal of model calls as a Ray actor: one writer on the driver's machine for all workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from neuron_atlas.tasks.models.journal import Claim, Spent, Tally
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.workflows.cluster.spread import result
from neuron_atlas.workflows.models.journal_mail import Message, deliver, post


@contextmanager
def open_journal(path: Path, purpose: str, budget_usd: float | None) -> Iterator[RemoteJournal]:
    """The journal in a file of this machine, for the calls of one purpose."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = _RemoteJournal.options(scheduling_strategy=here).remote(path, purpose, budget_usd)
    try:
        yield RemoteJournal(actor)
        ray.get(actor.close.remote())
    finally:
        ray.kill(actor)


@dataclass(frozen=True)
class RemoteJournal:
    """A `Journal` that forwards every call to the actor that holds the file; see `post`."""

    actor: Any

    async def answer(self, request_hash: str) -> str | None:
        """See `Journal`."""
        return await post(self.actor, "answer", request_hash)

    async def claim(self, request_hash: str, model: str, worst_usd: float, owner: str) -> Claim:
        """See `Journal`."""
        return await post(self.actor, "claim", request_hash, model, worst_usd, owner)

    async def settle(self, call: int, answer: str, spent: Spent) -> None:
        """See `Journal`."""
        await post(self.actor, "settle", call, answer, spent)

    async def fail(self, call: int, status: str, billed: bool) -> None:
        """See `Journal`."""
        await post(self.actor, "fail", call, status, billed)

    async def beat(self, owner: str) -> None:
        """See `Journal`."""
        await post(self.actor, "beat", owner)

    async def stop(self, why: str) -> None:
        """See `Journal`."""
        await post(self.actor, "stop", why)

    async def tally(self) -> Tally:
        """See `Journal`."""
        return await post(self.actor, "tally")

    def tally_now(self) -> Tally:
        """The same, for the driver."""
        return result(self.actor.tally.remote())

    def batches(self, settings: ClientSettings) -> int:
        """Batches to a model that were handed in and not fetched, now or by an earlier run."""
        return result(self.actor.batches.remote(settings))

    def hand_in(
        self, settings: ClientSettings, prices: Mapping[str, Price], spools: Sequence[Path]
    ) -> int:
        """Hand in requests by batch; how many. Raises Unusable."""
        return result(self.actor.hand_in.remote(settings, prices, spools))

    def look(self, settings: ClientSettings, prices: Mapping[str, Price]) -> int:
        """Fetch what batches have answered; the requests that are still under way."""
        return result(self.actor.look.remote(settings, prices))


class _JournalActor:
    def __init__(self, path: Path, purpose: str, budget_usd: float | None) -> None:
        from neuron_atlas.tasks.models.batch_journal import BatchJournal

        # Ray starts it again where it was killed, while its callers go on calling.
        again = ray.get_runtime_context().was_current_actor_reconstructed
        self._journal = BatchJournal(path, purpose, budget_usd, has_callers=again)
        self._purpose = purpose

    async def deliver(self, messages: list[Message]) -> list[Any]:
        return await deliver(self._journal, messages)

    async def tally(self) -> Tally:
        return await self._journal.tally()

    async def batches(self, settings: ClientSettings) -> int:
        return len(await self._journal.open_batches(settings.model_at))

    async def hand_in(
        self, settings: ClientSettings, prices: Mapping[str, Price], spools: Sequence[Path]
    ) -> int:
        from neuron_atlas.tasks.models.batch import batch_sender

        async with batch_sender(settings, prices, self._journal, self._purpose) as sender:
            return await sender.hand_in(spools)

    async def look(self, settings: ClientSettings, prices: Mapping[str, Price]) -> int:
        from neuron_atlas.tasks.models.batch import batch_sender

        async with batch_sender(settings, prices, self._journal, self._purpose) as sender:
            return await sender.look()

    async def close(self) -> None:
        self._journal.close()


_RemoteJournal: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_JournalActor)
