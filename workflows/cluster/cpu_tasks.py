"""Spread work over the nodes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.cluster.signals import cluster_is_gone, defer_signals, is_stop_requested
from neuron_atlas.workflows.cluster.waiting import WaitLines
from neuron_atlas.workflows.run.errors import PLAIN_ERRORS, RunError

Item = TypeVar("Item")

_LOOK_EVERY_S = 0.5
_QUIET_S = 2.0
"""Time to wait for work to end before a message is printed."""


def run_on_cpus(
    items: Iterable[Item],
    call: Callable[[Item], ray.ObjectRef],
    ending_s: float = 0.0,
) -> Iterator[tuple[Item, Any]]:
    """Run `call(item)` for every item, enough at a time to keep the cluster's CPUs busy; yield each
    as it finishes.

    Raises the work's own exception, after cancelling the running items. ending_s: seconds to wait
    for cancelled items. On a signal, work with an ending_s is cancelled; other work finishes.
    """
    cpus = ray.cluster_resources().get("CPU", 1)
    limit = 2 * max(1, int(cpus))
    is_occupied = ray.available_resources().get("CPU", 0) < 1
    lines = WaitLines("cluster")
    waiting = iter(items)
    running: dict[ray.ObjectRef, Item] = {}
    with defer_signals() as is_stopping:
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
                is_occupied = is_occupied and not ready
                if is_occupied:  # Other programs had all CPUs before this work was submitted.
                    lines.look(f"a free CPU: all {cpus:,.0f} are used by other work")
                for reference in ready:
                    yield running.pop(reference), get_result(reference)
        finally:
            if not cluster_is_gone():
                for reference in running:
                    ray.cancel(reference)
                _wait_for_end(list(running), ending_s)


def _wait_for_end(cancelled: list[ray.ObjectRef], ending_s: float) -> None:
    patience_s = min(_QUIET_S, ending_s)
    for wait_s in (patience_s, ending_s - patience_s):
        if cancelled and wait_s > 0:
            _, cancelled = ray.wait(cancelled, num_returns=len(cancelled), timeout=wait_s)
        if cancelled and wait_s == patience_s and wait_s < ending_s:
            print_line(
                f"stopping   once the running work has ended, at most {ending_s:.0f} s from now"
            )


def get_result(reference: ray.ObjectRef) -> Any:
    """Return the value of a reference. Raises the work's own exception, or RunError for one of
    Ray's."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        while isinstance(cause, ray.exceptions.RayTaskError):  # From an actor that the work called.
            cause = cause.cause
        if isinstance(cause, PLAIN_ERRORS):
            raise cause from None
        raise  # With the worker's traceback, which is shown nowhere else.
    except ray.exceptions.RayError as error:
        if is_stop_requested():  # The signal reached the worker too.
            raise KeyboardInterrupt from error
        first = str(error).strip().splitlines()[0]
        raise RunError(f"Ray could not finish the work: {first}") from error
