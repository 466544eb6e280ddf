"""The account as a Ray actor on the driver's machine, shared by all workers of a run."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.batches import open_batches
from neuron_atlas.tasks.models.account.messages import AccountMessage, AccountReply, Usage
from neuron_atlas.tasks.models.account.received import received_folder
from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.tasks.models.account.throttle import Throttle
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.cluster.cpu_tasks import get_result
from neuron_atlas.workflows.cluster.signals import cluster_is_gone

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
    """Open the account in a local file, for the calls of one purpose to one model."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = _Actor.options(scheduling_strategy=here).remote(
        path, purpose, budget_usd, client, prices
    )
    try:
        yield RemoteAccount(actor, received_folder(path, purpose))
        get_result(actor.close.remote())
    finally:
        if not cluster_is_gone():
            ray.kill(actor)


@dataclass(frozen=True)
class RemoteAccount:
    """An `Account` that forwards to the actor; picklable. Its plain methods are for the driver."""

    actor: Any
    received_folder: Path | None

    async def exchange(
        self, owner: str, items: Sequence[AccountMessage]
    ) -> tuple[list[AccountReply], float]:
        """See `Account`."""
        return await self.actor.exchange.remote(owner, items)

    def tally(self) -> Tally:
        """Return the totals so far."""
        return get_result(self.actor.tally.remote())

    def share_limits(self) -> LimitSettings:
        """Apply the client's limits to all programs of the cluster; return the previous ones."""
        return get_result(self.actor.share_limits.remote())

    def n_batches(self) -> int:
        """Count the open batches to the model, of any run: submitted and not fetched."""
        return get_result(self.actor.n_batches.remote())

    def submit(self, files: Sequence[Path]) -> int:
        """Submit the requests of some files as batches; return how many. Raises ProviderError."""
        return get_result(self.actor.submit.remote(files))

    def fetch(self) -> int:
        """Settle ended batches; return the number of requests under way. Raises ProviderError."""
        return get_result(self.actor.fetch.remote())


class _AccountActor(LocalAccount):
    """The account's actor. Ray restarts it if it is killed, while its callers continue."""

    def __init__(
        self,
        path: Path,
        purpose: str,
        budget_usd: float | None,
        client: ClientSettings,
        prices: Mapping[str, Price],
    ) -> None:
        is_restarted = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(path, purpose, budget_usd, has_callers=is_restarted)
        self._client, self._prices = client, prices
        # A restarted actor is a new program: the permits of the killed one expire.
        self._program = uuid.uuid4().hex
        self._limits: Any = None

    async def exchange_permits(
        self, used: Sequence[tuple[int, Usage]], wants: Sequence[int]
    ) -> tuple[list[int], float]:
        if not (used or wants or self._limits):
            return [], 0.0
        return await self._ask_limits(
            lambda actor: actor.exchange_permits.remote(self._program, used, wants)
        )

    async def share_limits(self) -> LimitSettings:
        return await self._ask_limits(lambda actor: actor.set_limits.remote(self._client.limits))

    async def n_batches(self) -> int:
        with self.transaction() as ledger:
            return len(open_batches(ledger, self._client.qualified_model))

    async def submit(self, files: Sequence[Path]) -> int:
        async with self._batch_sender() as sender:
            return await sender.submit(files)

    async def fetch(self) -> int:
        async with self._batch_sender() as sender:
            return await sender.fetch()

    def _batch_sender(self) -> AbstractAsyncContextManager[BatchSender]:
        from neuron_atlas.tasks.models.batch import (
            open_batch_sender,  # Importing it takes a second.
        )

        return open_batch_sender(self._client, self._prices, self, self.purpose)

    async def _ask_limits(self, method: Callable[[Any], Any]) -> Any:
        while True:
            try:
                self._limits = self._limits or _LimitsActor.options(
                    name=limits_name(self._client),
                    namespace=_NAMESPACE,
                    lifetime="detached",
                    get_if_exists=True,
                ).remote(self._client.limits)
                return await method(self._limits)
            except ray.exceptions.RayActorError:
                # It was idle, or its machine died. A new one does not know the earlier calls but
                # paces its own, so the limits are exceeded only slightly.
                self._limits = None
                await asyncio.sleep(_RETRY_S)


_Actor: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_AccountActor)


def limits_name(client: ClientSettings) -> str:
    """Return the name of the actor that holds the limits of a client's account."""
    return f"limits-{hashlib.sha256(client.limits_account.encode()).hexdigest()[:16]}"


class _Limits(Throttle):
    """The rate limits of a provider's account: one named actor for all programs of a cluster.

    Programs store their calls in files on different machines, but share the limits. So the actor is
    detached from the program that made it. It ends after 5 minutes without a call.
    """

    def __init__(self, limits: LimitSettings) -> None:
        super().__init__(limits)
        threading.Thread(target=self._end_when_idle, daemon=True).start()

    def _end_when_idle(self) -> None:
        while time.monotonic() - self.last_exchange_at < _IDLE_S:
            time.sleep(_CHECK_EVERY_S)
        ray.kill(ray.get_runtime_context().current_actor)


_LimitsActor: Any = ray.remote(num_cpus=0)(_Limits)
