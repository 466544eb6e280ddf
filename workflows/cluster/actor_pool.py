"""Long-lived actors that each hold something large, and pull work items until there are none."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import ray

from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.cluster.signals import finishing
from neuron_atlas.workflows.cluster.spread import result
from neuron_atlas.workflows.config.settings import ClusterSettings

Item = TypeVar("Item")
Count = Callable[[int], None]

_LOOK_EVERY_S = 0.5
_SAY_EVERY_S = 60.0
_MISSED_HEARTBEAT_S = 30.0
_CLOSES_WITHIN_S = 60.0


@dataclass(frozen=True)
class Placement:
    """Where an actor runs. threads: of a CPU. sharers: actors of the pool on its machine, which
    share the machine's memory. number: of the actor in its pool, from 0; the one that replaces it
    has the same. device: `cpu`, `cuda` for its one GPU, or `auto` for several."""

    threads: int
    sharers: int
    number: int
    device: str = "cpu"


CountActors = Callable[[ClusterSettings], tuple[int, dict[str, Any]]]
"""How many actors there is room for in the cluster, and the options that Ray starts each with."""


def actor_count(
    settings: ClusterSettings, gpus_per_actor: int | None = None
) -> tuple[int, dict[str, Any]]:
    """Return how many actors there is room for, and the resources that each asks of Ray: one for
    each GPU, or for each `threads` cores of a cluster without GPUs, unless cluster.actors is set.

    gpus_per_actor: None is the setting of the subject.
    """
    resources = ray.cluster_resources()
    if gpus := int(resources.get("GPU", 0)):
        each = settings.gpus_per_actor if gpus_per_actor is None else gpus_per_actor
        return settings.actors or max(1, gpus // each), {"num_gpus": each, "num_cpus": 1}
    cores = int(resources.get("CPU", 1))
    count = settings.actors or max(1, cores // settings.threads)
    return count, {"num_cpus": min(settings.threads, max(1, cores // count))}


@dataclass(frozen=True)
class Holding:
    """What actors keep in memory from item to item: a subject, a model, a server.

    name: of the actors, which steps with the same name share. load: loads it, within the actor, on
    first use and again after a restart. unload: ends it, within the actor. actors: how many.
    """

    name: str
    load: Callable[[Placement], Any]
    unload: Callable[[Any], None] | None = None
    actors: CountActors = actor_count


class PoolActor:
    """Holds one thing on one device, and works on one item at a time."""

    def __init__(self, holding: Holding, placement: Placement) -> None:
        self._holding, self._placement = holding, placement
        self._held: Any = None
        self._units_done = 0

    def work(self, on_item: Callable[[Any, Any, Count], Any], item: Any) -> Any:
        """Return `on_item(held, item, count)`."""
        # Loaded here and not at the start, so that an error reaches the caller.
        if self._held is None:
            gpus = len(ray.get_gpu_ids())
            device = ("cpu", "cuda")[gpus] if gpus < 2 else "auto"
            self._held = self._holding.load(replace(self._placement, device=device))
        self._units_done = 0
        return on_item(self._held, item, self._count)

    def units_done(self) -> int:
        """Units of the current item that are done. Also the actor's heartbeat."""
        return self._units_done

    def close(self) -> None:
        """End what it holds, if it holds anything."""
        if self._held is not None and self._holding.unload is not None:
            self._holding.unload(self._held)

    def _count(self, units: int) -> None:
        self._units_done += units


# Two threads: one works while the other answers how far it is.
_RemoteActor: Any = ray.remote(max_restarts=-1, max_task_retries=3, max_concurrency=2)(PoolActor)


@dataclass
class _Job:
    """An item that an actor works on. heartbeat: when the actor last answered."""

    actor: Any
    item: Any
    heartbeat: float = field(default_factory=time.monotonic)


class ActorPool:
    """Actors of one kind, started when there are items for them."""

    def __init__(self, holding: Holding, cluster: ClusterSettings) -> None:
        self._holding, self._cluster = holding, cluster
        self._actors: list[Any] = []

    def run(
        self,
        items: Sequence[Item],
        work: Callable[[Any, Item, Count], Any],
        on_progress: Callable[[Item, int], None],
        *,
        abandon_on_signal: bool = False,
    ) -> Iterator[tuple[Item, Any]]:
        """Do `work(held, item, count)` for every item in the actors; yield each with its result.

        on_progress: called with the units of an item that are done so far, as `work` counts them.
        An item goes to an actor that runs, so one that finds no place in the cluster holds up
        nothing. The item of an actor that misses its heartbeat goes to an idle one. At a signal the
        items under way are finished, or abandoned where what they did is stored. Raises what the
        work raises. The pool is closed when items are left unfinished.
        """
        waiting = deque(items)
        starting = self._start(len(items))
        working: dict[ray.ObjectRef, _Job] = {}
        idle: list[Any] = []
        quiet_since = time.monotonic()
        with finishing() as is_stopping:
            try:
                while (waiting and not is_stopping()) or working:
                    if abandon_on_signal and is_stopping():
                        break
                    while idle and waiting and not is_stopping():
                        job = _Job(idle.pop(), waiting.popleft())
                        working[job.actor.work.remote(work, job.item)] = job
                    ready, _ = ray.wait([*working, *starting], timeout=_LOOK_EVERY_S)
                    for reference in ready:
                        value = result(reference)
                        if reference in starting:
                            idle.append(starting.pop(reference))
                        else:
                            job = working.pop(reference)
                            idle.append(job.actor)
                            yield job.item, value
                    _look_at_progress(list(working.values()), on_progress)
                    for reference in _lost(working)[: len(idle)]:
                        # Such as of a node that died: Ray restarts the actor once there is a place.
                        job = working.pop(reference)
                        waiting.append(job.item)
                        actor = self._replace(job.actor)
                        starting[actor.units_done.remote()] = actor
                    if not (working or idle) and time.monotonic() - quiet_since > _SAY_EVERY_S:
                        quiet_since = time.monotonic()
                        say(f"{self._holding.name:<10} waits for a free GPU or CPU of the cluster")
            finally:
                if working:
                    self._close(list(working))

    def close(self) -> None:
        """End what the actors hold, and give their devices back."""
        self._close([])

    def _close(self, abandoned: list[ray.ObjectRef]) -> None:
        """See close. abandoned: work under way, which ends with what its actor holds."""
        if self._holding.unload is not None:
            # Nothing is to be ended of an actor that died and is being started again.
            ending = [actor.close.options(max_task_retries=0).remote() for actor in self._actors]
            ending += abandoned
            ray.wait(ending, num_returns=len(ending), timeout=_CLOSES_WITHIN_S)
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _start(self, n_items: int) -> dict[ray.ObjectRef, Any]:
        """Start as many actors as the items need. Returns what is ready once an actor runs."""
        limit, self._options = self._holding.actors(self._cluster)
        machines = sum(1 for node in ray.nodes() if node["Alive"])
        self._sharers = -(-limit // machines)
        missing = range(len(self._actors), min(limit, n_items))
        self._actors += [self._new_actor(number) for number in missing]
        return {actor.units_done.remote(): actor for actor in self._actors}

    def _new_actor(self, number: int) -> Any:
        placement = Placement(self._cluster.threads, self._sharers, number)
        return _RemoteActor.options(**self._options).remote(self._holding, placement)

    def _replace(self, lost: Any) -> Any:
        """End an actor, and start another in its place."""
        ray.kill(lost)
        number = self._actors.index(lost)
        self._actors[number] = self._new_actor(number)
        return self._actors[number]


def _lost(working: Mapping[ray.ObjectRef, _Job]) -> list[ray.ObjectRef]:
    """The work of actors that missed their heartbeat."""
    since = time.monotonic() - _MISSED_HEARTBEAT_S
    return [reference for reference, job in working.items() if job.heartbeat < since]


def _look_at_progress(jobs: Sequence[_Job], on_progress: Callable[[Any, int], None]) -> None:
    """Ask the actors how far they are. One that cannot answer now is asked again the next time."""
    asked = {job.actor.units_done.remote(): job for job in jobs}
    if not asked:
        return
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_EVERY_S)
    for reference in answered:
        with suppress(ray.exceptions.RayError):
            on_progress(asked[reference].item, ray.get(reference))
            asked[reference].heartbeat = time.monotonic()
