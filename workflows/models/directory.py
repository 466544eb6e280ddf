"""Which servers answer now, as a Ray actor that is told by those who keep them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from neuron_atlas.tasks.models.servers import Directory, Server
from neuron_atlas.tasks.serve.keep import State
from neuron_atlas.workflows.cluster.spread import result

_SILENT_S = 20.0
"""Nobody keeps a server any more that was not heard of for so long: its machine is gone."""
_ANSWER_AFTER_S = 2.0
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class RemoteServers:
    """The `Servers` that this program started, for workers on any machine of the cluster."""

    actor: Any
    key: str = field(repr=False)
    ours: bool = True
    direct: bool = True

    async def directory(self, known: Directory | None) -> Directory:
        """See `Servers`."""
        return await self.actor.directory.remote(known)

    def states(self) -> list[State]:
        """What was last heard of each server, for the driver."""
        return list(result(self.actor.states.remote()))


def open_directory(count: int, key: str) -> RemoteServers:
    """A directory of so many servers, kept on this machine until its actor is killed."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return RemoteServers(_RemoteDirectory.options(scheduling_strategy=here).remote(count), key)


class _DirectoryActor:
    def __init__(self, count: int) -> None:
        self._count = count
        self._states: dict[int, State] = {}
        self._heard: dict[int, float] = {}

    async def tell(self, state: State) -> None:
        self._states[state.number] = state
        self._heard[state.number] = time.monotonic()

    async def states(self) -> list[State]:
        return [self._states[number] for number in sorted(self._states)]

    async def directory(self, known: Directory | None) -> Directory:
        deadline = time.monotonic() + _ANSWER_AFTER_S
        while (now := self._now()) == known and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_EVERY_S)
        return now

    def _now(self) -> Directory:
        since = time.monotonic() - _SILENT_S
        answering = tuple(
            Server(f"server-{number}", state.base_url)
            for number, state in sorted(self._states.items())
            if state.base_url is not None and self._heard[number] > since
        )
        given_up = [state.died for state in self._states.values() if state.is_given_up]
        return Directory(answering, given_up[0] if len(given_up) == self._count else "")


_RemoteDirectory: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(
    _DirectoryActor
)
