"""Run work items on long-lived actors that each hold a large object, such as a model."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import ray

from neuron_atlas.workflows.cluster.connect import is_own_cluster
from neuron_atlas.workflows.cluster.cpu_tasks import get_result
from neuron_atlas.workflows.cluster.signals import cluster_is_gone, defer_signals
from neuron_atlas.workflows.cluster.waiting import WaitLines, explained_wait
from neuron_atlas.workflows.config.settings import ClusterSettings

Item = TypeVar("Item")
Count = Callable[[int], None]

_LOOK_EVERY_S = 0.5
_MISSED_HEARTBEAT_S = 30.0
_CLOSES_WITHIN_S = 60.0


@dataclass(frozen=True)
class Placement:
    """Where an actor runs. threads: CPU threads. n_processes: actors of the pool on its machine,
    which share the machine's memory. number: index of the actor in its pool, from 0; a replacement
    keeps it. device: `cpu`, `cuda` for its one GPU, or `auto` for several."""

    threads: int
    n_processes: int
    number: int
    device: str = "cpu"


CountActors = Callable[[ClusterSettings], tuple[int, dict[str, Any]]]
"""Returns how many actors fit the cluster, and Ray's options for each."""


def actor_count(
    settings: ClusterSettings, gpus_per_actor: int | None = None
) -> tuple[int, dict[str, Any]]:
    """Return how many actors fit the cluster, and the Ray resources of each.

    By default one for each gpus_per_actor GPUs, or for each `threads` cores of a cluster without
    GPUs; cluster.actors overrides the count. gpus_per_actor: None is cluster.gpus_per_actor.
    Actors on the CPUs of a cluster of our own reserve nothing: steps run one after another, so they
    are idle when others work, and can stay loaded.
    """
    resources = ray.cluster_resources()
    if gpus := int(resources.get("GPU", 0)):
        each = settings.gpus_per_actor if gpus_per_actor is None else gpus_per_actor
        return settings.actors or max(1, gpus // each), {"num_gpus": each, "num_cpus": 1}
    cores = int(resources.get("CPU", 1))
    count = settings.actors or max(1, cores // settings.threads_per_actor)
    if is_own_cluster(settings):
        return count, {"num_cpus": 0}
    return count, {"num_cpus": min(settings.threads_per_actor, max(1, cores // count))}


@dataclass(frozen=True)
class ActorResource:
    """The large object that actors hold between items: a subject, a model, a server.

    name: steps with the same name share their actors. load: loads it in the actor, on first use and
    after a restart. unload: ends it in the actor. actors: counts the actors. The object may have a
    property `waits_for`: what its work waits for now, "" for nothing.
    """

    name: str
    load: Callable[[Placement], Any]
    unload: Callable[[Any], None] | None = None
    actors: CountActors = actor_count


class PoolActor:
    """An actor that holds one object and works on one item at a time."""

    def __init__(self, resource: ActorResource, placement: Placement) -> None:
        self._resource, self._placement = resource, placement
        self._loaded: Any = None
        self._loading = threading.Lock()
        self._units_done = 0

    def work(self, on_item: Callable[[Any, Any, Count], Any], item: Any) -> Any:
        """Return `on_item(loaded, item, count)`."""
        self.load()
        self._units_done = 0
        return on_item(self._loaded, item, self._count)

    def load(self) -> None:
        """Load the held object unless it is loaded."""
        # Not in the constructor, so that an error reaches the caller.
        with self._loading:
            if self._loaded is not None:
                return
            gpus = len(ray.get_gpu_ids())
            device = ("cpu", "cuda")[gpus] if gpus < 2 else "auto"
            with _without_garbage_collection():
                self._loaded = self._resource.load(replace(self._placement, device=device))

    def state(self) -> tuple[int, str]:
        """Return the finished units of the current item, and what its work waits for; "" if it
        works. Also serves as the actor's heartbeat."""
        if self._loading.locked():
            return 0, "its model to load, which the first use also downloads"
        return self._units_done, getattr(self._loaded, "waits_for", "")

    def close(self) -> None:
        """Unload the held object, if there is one."""
        if self._loaded is not None and self._resource.unload is not None:
            self._resource.unload(self._loaded)

    def _count(self, units: int) -> None:
        self._units_done += units


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Import libraries and load a model a fifth faster: their many objects are no garbage, and
    later collections skip them, too."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


# Three threads: one loads early, one works, and one reports progress.
_RemoteActor: Any = ray.remote(max_restarts=-1, max_task_retries=3, max_concurrency=3)(PoolActor)


@dataclass
class _Job:
    """An item that an actor works on. heartbeat: when the actor last answered. waits_for: see
    PoolActor.state."""

    actor: Any
    item: Any
    waits_for: str = ""
    heartbeat: float = field(default_factory=time.monotonic)


class ActorPool:
    """Actors of one kind, started when there are items for them."""

    def __init__(self, resource: ActorResource, cluster: ClusterSettings) -> None:
        self._resource, self._cluster = resource, cluster
        self._actors: list[Any] = []
        self._options: dict[str, Any] = {}

    @property
    def blocks_cpus(self) -> bool:
        """Whether work on CPUs cannot run well next to its actors: they take more than half of the
        cluster's CPUs."""
        taken = self._options.get("num_cpus", 0) * len(self._actors)
        return bool(2 * taken > ray.cluster_resources().get("CPU", 0))

    def run(
        self,
        items: Sequence[Item],
        work: Callable[[Any, Item, Count], Any],
        on_progress: Callable[[Item, int], None],
        *,
        abandon_on_signal: bool = False,
    ) -> Iterator[tuple[Item, Any]]:
        """Run `work(loaded, item, count)` for every item on the actors; yield each with its result.

        on_progress: called with an item and its finished units, as counted by `work`. Items go only
        to running actors, so an actor that waits for a free node blocks nothing. The item of an
        actor that misses its heartbeat goes to an idle one. On a signal, running items finish; with
        abandon_on_signal they stop. Raises the exceptions of `work`. The pool is closed if items
        stay unfinished.
        """
        waiting = deque(items)
        starting = self._start(len(items))
        working: dict[ray.ObjectRef, _Job] = {}
        idle: list[Any] = []
        lines = WaitLines(self._resource.name)
        with defer_signals() as is_stopping:
            try:
                while (waiting and not is_stopping()) or working:
                    if abandon_on_signal and is_stopping():
                        break
                    while idle and waiting and not is_stopping():
                        job = _Job(idle.pop(), waiting.popleft())
                        working[job.actor.work.remote(work, job.item)] = job
                    ready, _ = ray.wait([*working, *starting], timeout=_LOOK_EVERY_S)
                    for reference in ready:
                        value = get_result(reference)
                        if reference in starting:
                            idle.append(starting.pop(reference))
                        else:
                            job = working.pop(reference)
                            idle.append(job.actor)
                            yield job.item, value
                    _update_progress(list(working.values()), on_progress)
                    for reference in _lost(working)[: len(idle)]:
                        # A node may have died: Ray starts the new actor once resources are free.
                        job = working.pop(reference)
                        waiting.append(job.item)
                        actor = self._replace(job.actor)
                        starting[actor.state.remote()] = actor
                    waits_for = _waits_for(list(working.values()), has_idle=bool(idle))
                    if waits_for:
                        lines.look(waits_for)
                    else:
                        lines.restart()
            finally:
                if working:
                    self._close(list(working))

    def load(self) -> None:
        """Start all actors, and load what they hold in the background. An error is raised by work
        that needs it."""
        self._start(sys.maxsize)
        for actor in self._actors:
            actor.load.remote()

    def close(self) -> None:
        """Unload the held objects, and release the actors' devices."""
        self._close([])

    def _close(self, abandoned: list[ray.ObjectRef]) -> None:
        """Close the pool. abandoned: running work, which ends when its actor's object does."""
        if cluster_is_gone():
            self._actors = []
            return
        if self._resource.unload is not None:
            # No retries: a restarting actor holds nothing to unload.
            ending = [actor.close.options(max_task_retries=0).remote() for actor in self._actors]
            ending += abandoned
            with explained_wait(self._resource.name, "its actors to end"):
                ray.wait(ending, num_returns=len(ending), timeout=_CLOSES_WITHIN_S)
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _start(self, n_items: int) -> dict[ray.ObjectRef, Any]:
        """Start as many actors as the items need. The references are ready once an actor runs."""
        limit, self._options = self._resource.actors(self._cluster)
        machines = sum(1 for node in ray.nodes() if node["Alive"])
        self._per_machine = -(-limit // machines)
        missing = range(len(self._actors), min(limit, n_items))
        self._actors += [self._new_actor(number) for number in missing]
        return {actor.state.remote(): actor for actor in self._actors}

    def _new_actor(self, number: int) -> Any:
        placement = Placement(self._cluster.threads_per_actor, self._per_machine, number)
        return _RemoteActor.options(**self._options).remote(self._resource, placement)

    def _replace(self, lost: Any) -> Any:
        """Kill an actor, and return a new one in its place."""
        ray.kill(lost)
        number = self._actors.index(lost)
        self._actors[number] = self._new_actor(number)
        return self._actors[number]


def _waits_for(jobs: Sequence[_Job], *, has_idle: bool) -> str:
    """Return what all work waits for; "" if some does not."""
    if not jobs:
        return "" if has_idle else "a free GPU or CPU in the cluster, or a process on it"
    return jobs[0].waits_for if all(job.waits_for for job in jobs) else ""


def _lost(working: Mapping[ray.ObjectRef, _Job]) -> list[ray.ObjectRef]:
    """Return the work of actors that missed their heartbeat."""
    since = time.monotonic() - _MISSED_HEARTBEAT_S
    return [reference for reference, job in working.items() if job.heartbeat < since]


def _update_progress(jobs: Sequence[_Job], on_progress: Callable[[Any, int], None]) -> None:
    """Update progress and heartbeats. An actor that does not answer now is skipped."""
    pending = {job.actor.state.remote(): job for job in jobs}
    if not pending:
        return
    answered, _ = ray.wait(list(pending), num_returns=len(pending), timeout=_LOOK_EVERY_S)
    for reference in answered:
        with suppress(ray.exceptions.RayError):
            units, pending[reference].waits_for = ray.get(reference)
            on_progress(pending[reference].item, units)
            pending[reference].heartbeat = time.monotonic()
