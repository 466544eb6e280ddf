"""Waits that end by progress, so that a busy machine does not end them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 900.0
"""Nothing that works is silent for so long, however busy the machine is."""

_Found = TypeVar("_Found")


def wait_until(
    reached: Callable[[], _Found],
    *,
    is_alive: Callable[[], bool] = lambda: True,
    log: Callable[[], str] = lambda: "",
    every_s: float = 0.02,
) -> _Found:
    """Wait until `reached` returns something true, and return it.

    Fails when the observed program ends first (is_alive), or when nothing is new for PATIENCE_S
    seconds in what it has written (log).
    """
    seen, since = log(), time.monotonic()
    while not (found := reached()):
        assert is_alive(), f"it ended too early:\n{log()}"
        if (written := log()) != seen:
            seen, since = written, time.monotonic()
        assert time.monotonic() - since < PATIENCE_S, f"no progress for {PATIENCE_S:.0f} s:\n{seen}"
        time.sleep(every_s)
    return found


def wait_for_end(process: subprocess.Popen[bytes], log: Callable[[], str] = lambda: "") -> int:
    """Wait for a process as long as it makes progress; its exit status."""
    wait_until(lambda: process.poll() is not None, log=log)
    return process.wait()
