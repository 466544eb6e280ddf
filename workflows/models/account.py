"""The account as a Ray actor: on the driver's machine, for all workers of a run."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.batches import Batches
from neuron_atlas.tasks.models.account.messages import Reply, Result, Usage, Want
from neuron_atlas.tasks.models.account.received import received_folder
from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.tasks.models.account.throttle import Throttle
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.cluster.spread import result

if TYPE_CHECKING:
    from neuron_atlas.tasks.models.batch import BatchSender

_NAMESPACE = "neuron-atlas"
_CHECK_EVERY_S = 30.0
_IDLE_S = 300.0
_RETRY_S = 0.5


@contextmanager
def open_account(
    path: Path,
    purpose: str,
    budget_usd: float | None,
    client: ClientSettings,
    prices: Mapping[str, Price],
) -> Iterator[RemoteAccount]:
    """Open the account in a file of this machine, for the calls of one purpose to one model."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = _Actor.options(scheduling_strategy=here).remote(
        path, purpose, budget_usd, client, prices
    )
    try:
        yield RemoteAccount(actor, received_folder(path, purpose))
        result(actor.close.remote())
    finally:
        ray.kill(actor)


@dataclass(frozen=True)
class RemoteAccount:
    """An `Account` that forwards to the actor; picklable. Its plain methods are for the driver."""

    actor: Any
    received_folder: Path | None

    async def look_up(self, owner: str, hashes: Sequence[str]) -> list[str | None]:
        """See `Account`."""
        return await self.actor.look_up.remote(owner, hashes)

    async def lease(self, owner: str, wants: Sequence[Want]) -> list[tuple[int, Reply]]:
        """See `Account`."""
        return await self.actor.lease.remote(owner, wants)

    async def settle(self, owner: str, results: Sequence[Result]) -> None:
        """See `Account`."""
        await self.actor.settle.remote(owner, results)

    async def leave(self, owner: str, sent: Sequence[int]) -> None:
        """See `Account`."""
        await self.actor.leave.remote(owner, sent)

    def tally(self) -> Tally:
        """Return the totals so far."""
        return result(self.actor.tally.remote())

    def share_limits(self) -> LimitSettings:
        """Put the client's limits in force for all programs; return those that were."""
        return result(self.actor.share_limits.remote())

    def n_batches(self) -> int:
        """Count the batches to the model that were handed in and not fetched, by any run."""
        return result(self.actor.n_batches.remote())

    def hand_in(self, files: Sequence[Path]) -> int:
        """Hand in the requests of some files by batch; return how many. Raises Unusable."""
        return result(self.actor.hand_in.remote(files))

    def fetch(self) -> int:
        """Settle what batches have answered; return the number of requests under way."""
        return result(self.actor.fetch.remote())


class _AccountActor(LocalAccount):
    """Restarted by Ray where it is killed, while its callers go on calling."""

    def __init__(
        self,
        path: Path,
        purpose: str,
        budget_usd: float | None,
        client: ClientSettings,
        prices: Mapping[str, Price],
    ) -> None:
        self._limits = _SharedThrottle(client)
        again = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(path, purpose, budget_usd, deal=self._limits.deal, has_callers=again)
        self._client, self._prices = client, prices

    async def share_limits(self) -> LimitSettings:
        return await asyncio.to_thread(self._limits.change)

    async def n_batches(self) -> int:
        return len(await Batches(self).open(self._client.model_at))

    async def hand_in(self, files: Sequence[Path]) -> int:
        async with self._batch_sender() as sender:
            return await sender.hand_in(files)

    async def fetch(self) -> int:
        async with self._batch_sender() as sender:
            return await sender.fetch()

    def _batch_sender(self) -> AbstractAsyncContextManager[BatchSender]:
        from neuron_atlas.tasks.models.batch import batch_sender  # It takes a second to import.

        return batch_sender(self._client, self._prices, self, self._purpose)


_Actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_AccountActor)


class _SharedThrottle:
    """The rate limits of a provider's account: one named actor for all programs of a cluster.

    Programs store their calls in files on different machines, but share the limits. So the actor
    outlives the program that made it. It ends when nobody has called for some minutes.
    """

    def __init__(self, client: ClientSettings) -> None:
        self._limits, self._name = client.limits, self.actor_name(client)
        self._program = ray.get_runtime_context().get_actor_id()

    @staticmethod
    def actor_name(client: ClientSettings) -> str:
        """Return the name of the actor of a client's account."""
        return f"limits-{hashlib.sha256(client.account.encode()).hexdigest()[:16]}"

    def deal(
        self, used: Sequence[tuple[int, Usage]], wants: Sequence[int]
    ) -> tuple[list[int], float]:
        """See `Throttle.deal`."""
        while True:
            dealt = self._call(lambda actor: actor.deal.remote(self._program, used, wants))
            if dealt is not None:
                return dealt
            self.change()

    def change(self) -> LimitSettings:
        """Put these limits in force; return those that were."""
        return self._call(lambda actor: actor.change.remote(self._limits))

    def _call(self, method: Callable[[Any], Any]) -> Any:
        while True:
            actor = _ThrottleActor.options(
                name=self._name, namespace=_NAMESPACE, lifetime="detached", get_if_exists=True
            ).remote(self._limits)
            try:
                return ray.get(method(actor))
            except ray.exceptions.RayActorError:
                # It was idle, or its machine died. Its successor knows of no call but paces its
                # own, so little more than is permitted goes out.
                time.sleep(_RETRY_S)


class _ThrottleActorImpl:
    def __init__(self, limits: LimitSettings) -> None:
        self._throttle, self._limits = Throttle(limits), limits
        # Ray restarts it with the limits of the program that made it first.
        self._is_current = not ray.get_runtime_context().was_current_actor_reconstructed
        self._called_at = time.monotonic()
        self._ending: asyncio.Task[None] | None = None

    async def deal(
        self, program: str, used: Sequence[tuple[int, Usage]], wants: Sequence[int]
    ) -> tuple[list[int], float] | None:
        """None: `change` has to be called first."""
        self._stay()
        return self._throttle.deal(program, used, wants) if self._is_current else None

    async def change(self, limits: LimitSettings) -> LimitSettings:
        self._stay()
        before, self._limits, self._is_current = self._limits, limits, True
        self._throttle.change(limits)
        return before

    def _stay(self) -> None:
        self._called_at = time.monotonic()
        self._ending = self._ending or asyncio.ensure_future(self._end_when_idle())

    async def _end_when_idle(self) -> None:
        while time.monotonic() - self._called_at < _IDLE_S:
            await asyncio.sleep(_CHECK_EVERY_S)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


_ThrottleActor: Any = ray.remote(num_cpus=0, max_restarts=-1)(_ThrottleActorImpl)
