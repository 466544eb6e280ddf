"""A provider's limits as a named Ray actor: one for all workers of all programs on a cluster.

It outlives the program that made it, for another may be calling by then, and ends by itself once
nobody has called for some minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

from neuron_atlas.tasks.models.limits import Settled
from neuron_atlas.tasks.models.settings import LimitSettings

T = TypeVar("T")

_NAMESPACE = "neuron-atlas"
_LOOK_EVERY_S = 30.0
_ENDS_AFTER_S = 300.0
_TRY_AGAIN_S = 0.5
_handles: dict[str, Any] = {}


@dataclass(frozen=True)
class RemoteLimits:
    """The `Limits` of an account, wherever on the cluster they are kept.

    settings: what they begin with; see `agree` for limits that are in force already.
    """

    account: str
    settings: LimitSettings

    async def lease(self, owner: str, wants: tuple[int, ...]) -> tuple[int, ...]:
        """See `Limits`."""
        program = ray.get_runtime_context().get_job_id()
        while True:
            permits = await self._call(lambda actor: actor.lease.remote(owner, wants, program))
            if permits is not None:
                return permits
            await self._call(lambda actor: actor.agree.remote(self.settings))

    async def settle(self, owner: str, settled: tuple[Settled, ...]) -> None:
        """See `Limits`."""
        await self._call(lambda actor: actor.settle.remote(owner, settled))

    async def beat(self, owner: str) -> None:
        """See `Limits`."""
        await self._call(lambda actor: actor.beat.remote(owner))

    def agree(self) -> LimitSettings:
        """Put these settings in force for all who use the account; those that were until then."""
        while True:
            try:
                return ray.get(self._actor().agree.remote(self.settings))
            except ray.exceptions.RayActorError:
                _handles.pop(self.account, None)
                time.sleep(_TRY_AGAIN_S)

    async def _call(self, method: Callable[[Any], Awaitable[T]]) -> T:
        while True:
            try:
                return await method(self._actor())
            except ray.exceptions.RayActorError:
                # It ended for want of callers, or with its machine. Its successor knows of no
                # call, but paces its own, so little more than what is permitted goes out.
                _handles.pop(self.account, None)
                await asyncio.sleep(_TRY_AGAIN_S)

    def _actor(self) -> Any:
        if self.account not in _handles:
            named = hashlib.sha256(self.account.encode()).hexdigest()[:16]
            _handles[self.account] = _RemoteLimits.options(
                name=f"limits-{named}",
                namespace=_NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
            ).remote(self.settings)
        return _handles[self.account]


def forget_limits() -> None:
    """Forget where limits are kept: the cluster that they were on is left."""
    _handles.clear()


class _LimitsActor:
    def __init__(self, settings: LimitSettings) -> None:
        from neuron_atlas.tasks.models.shared_limits import SharedLimits

        self._limits = SharedLimits(settings)
        self._settings = settings
        # Ray starts it again with the settings of whoever made it first.
        self._is_agreed = not ray.get_runtime_context().was_current_actor_reconstructed
        self._last_call = time.monotonic()
        self._ending: asyncio.Task[None] | None = None

    async def lease(
        self, owner: str, wants: tuple[int, ...], program: str
    ) -> tuple[int, ...] | None:
        """None: the settings have to be agreed on again."""
        self._called()
        if not self._is_agreed:
            return None
        return await self._limits.lease(owner, wants, program)

    async def settle(self, owner: str, settled: tuple[Settled, ...]) -> None:
        self._called()
        await self._limits.settle(owner, settled)

    async def beat(self, owner: str) -> None:
        self._called()
        await self._limits.beat(owner)

    async def agree(self, settings: LimitSettings) -> LimitSettings:
        self._called()
        before, self._settings, self._is_agreed = self._settings, settings, True
        self._limits.throttle.change(settings)
        return before

    async def in_flight(self) -> int:
        return self._limits.throttle.in_flight

    def _called(self) -> None:
        self._last_call = time.monotonic()
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        while time.monotonic() - self._last_call < _ENDS_AFTER_S:
            await asyncio.sleep(_LOOK_EVERY_S)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


_RemoteLimits: Any = ray.remote(num_cpus=0, max_restarts=-1)(_LimitsActor)
