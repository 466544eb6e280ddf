"""SIGINT and SIGTERM: the first lets what is under way come to its end, a second ends all at once.

Where no work items are under way, the first ends the run at once too: nothing finished is lost.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from neuron_atlas.workflows.cluster.progress import say


@dataclass
class _State:
    sections: int = 0
    asked: bool = False


_state = _State()


def stop_on_signals() -> None:
    """Have both signals stop this process so; to be called in its main thread."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ask)


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """While open, a first signal does not interrupt: what it gives says whether one came, so that
    nothing new is begun. Raises KeyboardInterrupt when it closes after that."""
    _state.sections += 1
    try:
        yield lambda: _state.asked
    finally:
        _state.sections -= 1
        if not _state.sections:
            asked, _state.asked = _state.asked, False
    if not _state.sections and asked:
        raise KeyboardInterrupt


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Put back what SIGTERM does: starting Ray has it end the program with a status of Ray's.

    Raises KeyboardInterrupt where it came meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:  # Ray's handler, as the program's own would have ended it.
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _ask(_number: int, _frame: FrameType | None) -> None:
    if _state.asked or not _state.sections:
        raise KeyboardInterrupt
    _state.asked = True
    say("stopping   once what is under way has ended; another signal stops at once")
