"""Print a line about a wait that takes more than ten seconds, and again every minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from neuron_atlas.workflows.cluster.progress import print_line

FIRST_LINE_S = 10.0
NEXT_LINE_S = 60.0


class WaitLines:
    """Lines about one wait, for a loop that looks again and again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.restart()

    def restart(self) -> None:
        """Start a new wait: something has come."""
        self._began = time.monotonic()
        self._next_line_s = FIRST_LINE_S

    def look(self, what: str) -> None:
        """Print a line if one is due. what: what is waited for."""
        waited_s = time.monotonic() - self._began
        if waited_s < self._next_line_s:
            return
        self._next_line_s = waited_s + NEXT_LINE_S
        print_line(f"{self._name:<10} waiting for {what}, {waited_s:,.0f} s so far")


@contextmanager
def explained_wait(name: str, what: str) -> Iterator[None]:
    """Print a line if the block takes more than ten seconds, and every minute after that.

    name: of the part of the run. what: what is waited for.
    """
    lines, ended = WaitLines(name), threading.Event()

    def look() -> None:
        due_s = FIRST_LINE_S
        while not ended.wait(due_s):
            lines.look(what)
            due_s = NEXT_LINE_S

    thread = threading.Thread(target=look, name="wait", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
