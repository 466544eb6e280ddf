"""Spread work over the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from neuron_atlas.tasks.artifacts.full_disk import DiskFull
from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.models.pretrained import ModelError
from neuron_atlas.tasks.samples.source import BadSample, SourceError
from neuron_atlas.workflows.cluster.nodes_used import arrived
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.cluster.signals import finishing
from neuron_atlas.workflows.run.errors import RunFailed, WrongCall

Item = TypeVar("Item")

_LOOK_EVERY_S = 0.5
_QUIET_S = 2.0
"""Of waiting for work to end; after that it is said."""

_FOR_PEOPLE = (WrongCall, RunFailed, DiskFull, BadSample, SourceError, ModelError, Unusable)
"""Errors of the work whose message says all that there is to say."""


def spread(
    items: Iterable[Item],
    call: Callable[[Item], ray.ObjectRef],
    ending_s: float = 0.0,
    abreast: int | None = None,
) -> Iterator[tuple[Item, Any]]:
    """Run `call(item)` for every item, a bounded number at a time; yield each as it finishes.

    Raises the work's own exception, with the rest cancelled. ending_s: how long what was cancelled
    is waited for, where it has something to bring to its end; at a signal it is cancelled too,
    while other work is let finish. abreast: how many run at a time; None is enough to keep the
    cluster's CPUs busy.
    """
    limit = abreast or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(items)
    running: dict[ray.ObjectRef, Item] = {}
    with finishing() as is_stopping:
        try:
            while not (is_stopping() and ending_s):
                while (
                    len(running) < limit
                    and not is_stopping()
                    and (item := next(waiting, None)) is not None
                ):
                    running[call(item)] = item
                if not running:
                    return
                ready, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_EVERY_S)
                for reference in ready:
                    yield running.pop(reference), result(reference)
        finally:
            for reference in running:
                ray.cancel(reference)
            _wait_for_end(list(running), ending_s)


def _wait_for_end(cancelled: list[ray.ObjectRef], ending_s: float) -> None:
    patience_s = min(_QUIET_S, ending_s)
    for wait_s in (patience_s, ending_s - patience_s):
        if cancelled and wait_s > 0:
            _, cancelled = ray.wait(cancelled, num_returns=len(cancelled), timeout=wait_s)
        if cancelled and wait_s == patience_s and wait_s < ending_s:
            say(f"stopping   once what is under way has ended, in {ending_s:.0f} s at most")


def result(reference: ray.ObjectRef) -> Any:
    """The value of a reference, or the exception that the work itself raised."""
    try:
        return arrived(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        while isinstance(cause, ray.exceptions.RayTaskError):  # Of an actor that the work asked.
            cause = cause.cause
        if isinstance(cause, _FOR_PEOPLE):
            raise cause from None
        raise  # With the worker's own traceback, which is nowhere else to be seen.
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise RunFailed(f"Ray could not finish the work: {first}") from error
