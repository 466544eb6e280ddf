"""Handle SIGINT and SIGTERM: the first lets running work items end, a second stops at once.

If no work items are running, the first one stops the run at once too. Finished work is kept.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from neuron_atlas.workflows.cluster.progress import print_line


@dataclass
class _State:
    sections: int = 0
    is_requested: bool = False
    is_cluster_gone: Callable[[], bool] = lambda: False


_state = _State()


def stop_on_signals() -> None:
    """Install the SIGINT and SIGTERM handlers. Call from the main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _request_stop)


@contextmanager
def defer_signals() -> Iterator[Callable[[], bool]]:
    """Defer the first signal while open. Yields a function that returns whether it has arrived.

    Begin no new work after that. Raises KeyboardInterrupt on exit if a signal arrived. The function
    raises it once the signal has also ended the cluster: no running work can end then.
    """
    _state.sections += 1
    try:
        yield _is_stopping
    finally:
        _state.sections -= 1
        if not _state.sections:
            is_requested, _state.is_requested = _state.is_requested, False
    if not _state.sections and is_requested:
        raise KeyboardInterrupt


def watch_cluster(is_gone: Callable[[], bool]) -> None:
    """Set the function that tells whether the cluster's processes have ended."""
    _state.is_cluster_gone = is_gone


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


def _is_stopping() -> bool:
    if _state.is_requested and _state.is_cluster_gone():
        raise KeyboardInterrupt
    return _state.is_requested


def _request_stop(_number: int, _frame: FrameType | None) -> None:
    if _state.is_requested or not _state.sections:
        raise KeyboardInterrupt
    _state.is_requested = True
    print_line("stopping   once the running work has ended; another signal stops at once")
