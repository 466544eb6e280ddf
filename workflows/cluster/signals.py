"""Handle SIGINT and SIGTERM: the first lets running work items end, a second stops at once.

If no work items are running, the first one stops the run at once too. Finished work is kept.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.errors import RunError

_ON_ITS_WAY_S = 1.0


@dataclass
class _State:
    sections: int = 0
    is_requested: bool = False
    is_cluster_gone: Callable[[], bool] = lambda: False
    on_gone: Callable[[], None] = lambda: None


_state = _State()


def stop_on_signals() -> None:
    """Install the SIGINT and SIGTERM handlers. Call from the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _request_stop)


@contextmanager
def defer_signals() -> Iterator[Callable[[], bool]]:
    """Defer the first signal while open. Yields a function that returns whether it has arrived.

    Begin no new work after that. Raises KeyboardInterrupt on exit if a signal arrived. If the
    cluster has ended, no running work can end: the function then raises KeyboardInterrupt after a
    signal, and RunError without one.
    """
    _state.sections += 1
    try:
        yield is_stop_requested
    finally:
        _state.sections -= 1
        if not _state.sections:
            is_requested, _state.is_requested = _state.is_requested, False
    if not _state.sections and is_requested:
        raise KeyboardInterrupt


def watch_cluster(is_gone: Callable[[], bool], on_gone: Callable[[], None] = lambda: None) -> None:
    """Set the function that returns whether the cluster's processes have ended. on_gone: called
    before the run ends for that."""
    _state.is_cluster_gone, _state.on_gone = is_gone, on_gone


def cluster_is_gone() -> bool:
    """Return whether the cluster's processes have ended. Any call of Ray would then wait for a
    minute, and end the program."""
    return _state.is_cluster_gone()


@contextmanager
def preserve_sigterm() -> Iterator[None]:
    """Restore the SIGTERM handler on exit: starting Ray installs one that exits with Ray's status.

    Raises KeyboardInterrupt if SIGTERM arrives while open.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:  # Raised by Ray's handler.
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def is_stop_requested() -> bool:
    """Return whether a first signal has arrived. See `defer_signals` for what it raises."""
    if cluster_is_gone():
        _state.on_gone()
        # Signals may come at the same time, so one that is on its way is waited for.
        time.sleep(0 if _state.is_requested else _ON_ITS_WAY_S)
        if not _state.is_requested:
            raise RunError(
                "Ray's processes have ended, as when this machine runs out of memory; finished "
                "work is kept, and the same command goes on from there"
            )
        raise KeyboardInterrupt
    return _state.is_requested


def _request_stop(_number: int, _frame: FrameType | None) -> None:
    if _state.is_requested or not _state.sections:
        raise KeyboardInterrupt
    _state.is_requested = True
    print_line("stopping   once the running work has ended; another signal stops at once")
