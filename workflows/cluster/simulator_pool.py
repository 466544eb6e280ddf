"""Long-lived actors that each hold a simulator's model, and simulate parts until there are none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray

from neuron_atlas.workflows.cluster.nodes_used import Done, done_here
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.cluster.spread import actor_count
from neuron_atlas.workflows.config.settings import ClusterSettings

_SECONDS_BEFORE_SAYING = 60.0


class SimulatorActor:
    """One copy of a simulator's model on one device."""

    def __init__(self, simulator: Any, threads: int) -> None:
        self._settings = simulator
        self._threads = threads
        self._loaded: Any = None

    def ready(self) -> None:
        """Return once the actor has its place in the cluster."""

    def work(self, on_part: Callable[..., None], *arguments: Any) -> Done:
        """`on_part(simulator, *arguments)`, the simulator with its model in memory."""
        # Loaded on first use, so a restarted actor loads again, and an error reaches the caller.
        if self._loaded is None:
            device = "cuda" if ray.get_gpu_ids() else "cpu"
            self._loaded = self._settings.load(device, self._threads)
        on_part(self._loaded, *arguments)
        return done_here(None)


_RemoteSimulator: Any = ray.remote(max_restarts=-1, max_task_retries=3)(SimulatorActor)


class SimulatorPool:
    """The actors of one simulator, started as they are needed: at most one on each GPU, or on each
    core where there are none."""

    def __init__(self, simulator: Any, cluster: ClusterSettings) -> None:
        self._simulator = simulator
        self._threads = cluster.threads
        # A simulator's layers are never spread over several GPUs, as a subject's are.
        self.size, self._resources = actor_count(replace(cluster, gpus_per_actor=1))
        self._actors: list[Any] = []
        self._free: list[Any] = []
        self._coming: dict[ray.ObjectRef, Any] = {}
        """Actors that start or work, by what is there once they are free."""
        self._is_placed = False

    def submit(self, on_part: Callable[..., None], *arguments: Any) -> ray.ObjectRef:
        """Begin work (see SimulatorActor.work) on an actor that is free; waits until one is.

        Work goes to actors that have started, so one that finds no room in the cluster holds up
        nothing.
        """
        self._gather(0)
        if not self._free and len(self._actors) < self.size:
            self._start_one()
        while not self._free:
            self._gather(_SECONDS_BEFORE_SAYING)
            if not self._is_placed:
                say("simulate   waits for a GPU or CPU of the cluster to be free")
        actor = self._free.pop()
        reference = actor.work.remote(on_part, *arguments)
        self._coming[reference] = actor
        return reference

    def close(self) -> None:
        """Give the actors' devices back."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._free, self._coming = [], [], {}

    def _gather(self, timeout_s: float) -> None:
        """Note which actors are free by now, or as soon as one is."""
        if self._coming:
            ready, _ = ray.wait(list(self._coming), timeout=timeout_s)
            self._free += [self._coming.pop(reference) for reference in ready]
            self._is_placed = self._is_placed or bool(ready)

    def _start_one(self) -> None:
        actor = _RemoteSimulator.options(**self._resources).remote(self._simulator, self._threads)
        self._actors.append(actor)
        self._coming[actor.ready.remote()] = actor


def loads_model(simulator: Any) -> bool:
    """Whether a simulator runs a model of its own (see `ModelSimulator`)."""
    return bool(getattr(simulator, "loads_model", False))


@contextmanager
def simulator_pool(simulator: Any, cluster: ClusterSettings) -> Iterator[SimulatorPool | None]:
    """A pool for a simulator that loads a model, else None."""
    if not loads_model(simulator):
        yield None
        return
    pool = SimulatorPool(simulator, cluster)
    try:
        yield pool
    finally:
        pool.close()
