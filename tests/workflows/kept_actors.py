"""Actors that hold a subject, kept from one run of a test session to the next.

A run starts its own actors, which import torch; most runs of the tests are shorter than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import ray

from neuron_atlas.workflows.cluster.actor_pool import ActorPool
from neuron_atlas.workflows.run import subject

_AT_MOST = 3
"""Kept actors. Each takes some 500 MB."""


@contextmanager
def kept_actors() -> Iterator[None]:
    """Have pools leave their idle actors to the next pool that needs the same ones."""
    start, close = ActorPool._new_actor, ActorPool._close
    idle: list[tuple[object, Any]] = []
    kinds: dict[Any, object] = {}

    def start_or_take(pool: ActorPool, number: int) -> Any:
        kind = _kind(pool, number)
        fitting = [one for one in idle if one[0] == kind]
        if fitting:
            idle.remove(fitting[0])
        actor = fitting[0][1] if fitting else start(pool, number)
        kinds[actor] = kind
        return actor

    def keep_or_close(pool: ActorPool, abandoned: list[ray.ObjectRef]) -> None:
        if not abandoned:
            kept = [actor for actor in pool._actors if kinds.get(actor) is not None]
            idle.extend((kinds[actor], actor) for actor in kept)
            pool._actors = [actor for actor in pool._actors if actor not in kept]
            while len(idle) > _AT_MOST:
                ray.kill(idle.pop(0)[1])
        close(pool, abandoned)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActorPool, "_new_actor", start_or_take)
        patch.setattr(ActorPool, "_close", keep_or_close)
        yield


def _kind(pool: ActorPool, number: int) -> object:
    """Return what an actor has in common with one that can take its place; None if it must be new.
    It lives as long as the Ray of this process, its settings and its options are the same."""
    load = pool._resource.load
    if not isinstance(load, partial) or load.func is not subject._load:
        return None
    job = ray.get_runtime_context().get_job_id()
    threads, per_machine = pool._cluster.threads_per_actor, pool._per_machine
    return repr((job, load.args, threads, per_machine, number, pool._options))
