"""Attach to Ray or start it, and spread work over it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray

from workflows.errors import RunFailed, WrongCall
from workflows.settings import ClusterSettings

Item = TypeVar("Item")

_OBJECT_STORE_BYTES = 256 * 2**20
"""Work items carry paths and settings, never tables, so a cluster of our own needs little."""


@contextmanager
def cluster(settings: ClusterSettings) -> Iterator[None]:
    """A running Ray for as long as it is open; one that was running already is left as it is."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without this a token left behind by another Ray program decides how nodes authenticate.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled" if settings.address is None else "token")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = settings.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, **common)
        else:
            ray.init(
                num_cpus=settings.cpus,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                **common,
            )
    except ConnectionError as error:
        raise WrongCall(f"cluster.address: no Ray cluster at {address!r}") from error
    try:
        yield
    finally:
        ray.shutdown()


def spread(
    items: Iterable[Item], call: Callable[[Item], ray.ObjectRef]
) -> Iterator[tuple[Item, Any]]:
    """Run `call(item)` for every item, a bounded number at a time; yield each as it finishes.

    Raises the work's own exception, with the rest cancelled.
    """
    limit = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(items)
    running: dict[ray.ObjectRef, Item] = {}
    try:
        while True:
            while len(running) < limit and (item := next(waiting, None)) is not None:
                running[call(item)] = item
            if not running:
                return
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            yield running.pop(ready), result(ready)
    finally:
        for reference in running:
            ray.cancel(reference)


def result(reference: ray.ObjectRef) -> Any:
    """The value of a reference, or the exception that the work itself raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise RunFailed(f"Ray could not finish the work: {first}") from error


def actor_count(settings: ClusterSettings) -> tuple[int, dict[str, float]]:
    """How many subject actors to start, and what each asks of Ray."""
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    if gpus:
        return settings.actors or gpus, {"num_gpus": 1, "num_cpus": 1}
    cores = int(resources.get("CPU", 1))
    actors = settings.actors or max(1, cores // settings.threads)
    return actors, {"num_cpus": min(settings.threads, max(1, cores // actors))}
