"""Long-lived actors that each hold something large, and pull work items until there are none."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray

from neuron_atlas.workflows.cluster.nodes_used import Done, done_here
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
    """Where an actor runs. device: `cpu`, `cuda` for its one GPU, or `auto` for several. threads:
    of a CPU. sharers: actors of the pool on its machine, which share the machine's memory. number:
    of the actor in its pool, from 0; the one that replaces it has the same."""

    device: str
    threads: int
    sharers: int
    number: int = 0


Load = Callable[[Placement], Any]
"""Loads what an actor holds; called in the actor, on first use, and again after a restart."""
Unload = Callable[[Any], None]
"""Ends what an actor holds; called in the actor."""
CountActors = Callable[[ClusterSettings], tuple[int, dict[str, Any]]]
"""How many actors there is room for in the cluster, and the options that Ray starts each with."""


class PoolActor:
    """Holds one thing on one device, and works on one item at a time."""

    def __init__(self, load: Load, threads: int, sharers: int, number: int) -> None:
        self._load = load
        self._threads = threads
        self._sharers = sharers
        self._number = number
        self._held: Any = None
        self._units_done = 0

    def work(self, on_item: Callable[[Any, Any, Count], Any], item: Any) -> Done:
        """Return `on_item(held, item, count)`, with the node that it was done on."""
        # Loaded here and not at the start, so that an error reaches the caller.
        if self._held is None:
            gpus = len(ray.get_gpu_ids())
            device = ("cpu", "cuda")[gpus] if gpus < 2 else "auto"
            self._held = self._load(Placement(device, self._threads, self._sharers, self._number))
        self._units_done = 0
        return done_here(on_item(self._held, item, self._count))

    def units_done(self) -> int:
        """Units of the current item that are done. Also the actor's heartbeat."""
        return self._units_done

    def close(self, unload: Unload) -> None:
        """End what it holds, if it holds anything."""
        if self._held is not None:
            unload(self._held)

    def _count(self, units: int) -> None:
        self._units_done += units


# Two threads: one works while the other answers how far it is.
_RemoteActor: Any = ray.remote(max_restarts=-1, max_task_retries=3, max_concurrency=2)(PoolActor)


@dataclass
class _Assignment(Generic[Item]):
    """An item that an actor works on. heartbeat: when the actor last answered."""

    actor: Any
    item: Item
    heartbeat: float


class ActorPool:
    """Actors of one kind, started when there are items for them: at most one for each GPU, or for
    each `threads` cores of a cluster without GPUs, unless cluster.actors says how many."""

    def __init__(
        self,
        name: str,
        load: Load,
        cluster: ClusterSettings,
        *,
        actors: CountActors | None = None,
        unload: Unload | None = None,
    ) -> None:
        self._name = name
        self._load = load
        self._unload = unload
        self._cluster = cluster
        self._count_actors = actors or actor_count
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
        starting = {actor.units_done.remote(): actor for actor in self._start(len(items))}
        working: dict[ray.ObjectRef, _Assignment[Item]] = {}
        idle: list[Any] = []
        begun = time.monotonic()
        with finishing() as is_stopping:
            try:
                while (waiting and not is_stopping()) or working:
                    if abandon_on_signal and is_stopping():
                        break
                    while idle and waiting and not is_stopping():
                        actor, item = idle.pop(), waiting.popleft()
                        reference = actor.work.remote(work, item)
                        working[reference] = _Assignment(actor, item, time.monotonic())
                    ready, _ = ray.wait([*working, *starting], timeout=_LOOK_EVERY_S)
                    for reference in ready:
                        if reference in starting:
                            result(reference)
                            idle.append(starting.pop(reference))
                            continue
                        finished = working.pop(reference)
                        idle.append(finished.actor)
                        yield finished.item, result(reference)
                    _look_at_progress(working, on_progress)
                    for lost in self._lost(working)[: len(idle)]:
                        # Such as of a node that died: Ray restarts the actor once there is a place.
                        waiting.append(working.pop(lost[0]).item)
                        fresh = self._replace(lost[1])
                        starting[fresh.units_done.remote()] = fresh
                    if not (working or idle) and time.monotonic() - begun > _SAY_EVERY_S:
                        begun = time.monotonic()
                        say(f"{self._name:<10} waits for a free GPU or CPU of the cluster")
            finally:
                if working:
                    self._close(list(working))

    def close(self) -> None:
        """End what the actors hold, and give their devices back."""
        self._close([])

    def _close(self, abandoned: list[ray.ObjectRef]) -> None:
        """See close. abandoned: work under way, which ends with what its actor holds."""
        if self._unload is not None:
            # Nothing is to be ended of an actor that died and is being started again.
            ending = [
                actor.close.options(max_task_retries=0).remote(self._unload)
                for actor in self._actors
            ]
            ending += abandoned
            ray.wait(ending, num_returns=len(ending), timeout=_CLOSES_WITHIN_S)
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _start(self, n_items: int) -> list[Any]:
        """Return the actors, after starting as many as the items need."""
        limit, options = self._count_actors(self._cluster)
        machines = sum(1 for node in ray.nodes() if node["Alive"])
        self._new_actor = lambda number: _RemoteActor.options(**options).remote(
            self._load, self._cluster.threads, -(-limit // machines), number
        )
        missing = range(len(self._actors), min(limit, n_items))
        self._actors += [self._new_actor(number) for number in missing]
        return self._actors

    def _lost(self, working: dict[ray.ObjectRef, _Assignment[Item]]) -> list[Any]:
        now = time.monotonic()
        return [
            (reference, one.actor)
            for reference, one in working.items()
            if now - one.heartbeat > _MISSED_HEARTBEAT_S
        ]

    def _replace(self, lost: Any) -> Any:
        """Start another actor in the place of one, which is ended."""
        ray.kill(lost)
        number = self._actors.index(lost)
        fresh = self._actors[number] = self._new_actor(number)
        return fresh


def actor_count(
    settings: ClusterSettings, gpus_per_actor: int | None = None
) -> tuple[int, dict[str, Any]]:
    """Return how many actors there is room for, and the resources that each asks of Ray.

    gpus_per_actor: None is the setting of the subject.
    """
    gpus_per_actor = settings.gpus_per_actor if gpus_per_actor is None else gpus_per_actor
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    if gpus:
        count = settings.actors or max(1, gpus // gpus_per_actor)
        return count, {"num_gpus": gpus_per_actor, "num_cpus": 1}
    cores = int(resources.get("CPU", 1))
    count = settings.actors or max(1, cores // settings.threads)
    return count, {"num_cpus": min(settings.threads, max(1, cores // count))}


def _look_at_progress(
    working: dict[ray.ObjectRef, _Assignment[Item]], on_progress: Callable[[Item, int], None]
) -> None:
    """Ask the actors how far they are. One that cannot answer now is asked again the next time."""
    asked = {one.actor.units_done.remote(): one for one in working.values()}
    if not asked:
        return
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_LOOK_EVERY_S)
    for reference in answered:
        with suppress(ray.exceptions.RayError):
            on_progress(asked[reference].item, ray.get(reference))
            asked[reference].heartbeat = time.monotonic()
