"""Start Ray on a busy machine: try again when Ray's own waits run out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar

import psutil

from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.cluster.waiting import explained_wait
from neuron_atlas.workflows.run.errors import RunError

ATTEMPTS = 4
_TIMEOUT_MESSAGES = ("timed out", "timeout", "deadline exceeded", "failed to get node info")
_SECONDS_TO_END = 10.0

_Started = TypeVar("_Started")


def start_with_retries(start: Callable[[], _Started]) -> _Started:
    """Call `start`, which starts Ray processes, and return its result.

    Ray waits 30 s for its node and 15 s for its agent. Where one of these waits runs out, the
    processes of the failed attempt are killed and `start` is called again. The processes are in
    process groups of their own. Raises RunError after ATTEMPTS attempts, and for an error of the
    machine; other errors are raised unchanged.
    """
    for attempt in range(1, ATTEMPTS + 1):
        before = set(psutil.Process().children())
        begun = time.monotonic()
        try:
            with explained_wait("cluster", "Ray to start"), _own_process_groups():
                return start()
        except Exception as error:
            if not _is_timeout(error):
                if _is_of_machine(error):
                    raise RunError(f"Ray did not start: {_first_line(error)}") from error
                raise
            _kill(set(psutil.Process().children()) - before)
            if attempt == ATTEMPTS:
                raise RunError(
                    f"Ray did not start in {ATTEMPTS} attempts, the machine is too busy. Run the "
                    "same command when it is less busy; finished work is kept."
                ) from error
            print_line(
                f"cluster    Ray did not start within {time.monotonic() - begun:.0f} s, the "
                f"machine is busy; trying again ({attempt + 1} of {ATTEMPTS})"
            )
    raise AssertionError("unreachable")


@contextmanager
def _own_process_groups() -> Iterator[None]:
    """Start Ray's processes in process groups of their own while open.

    A signal to the program's group, as from Ctrl-C or `timeout`, then reaches the program only: it
    needs its cluster until the running work has ended.
    """
    from ray._private import services  # Late: Ray reads its environment when it is imported.

    popen = services.ConsolePopen
    services.ConsolePopen = partial(popen, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = popen


def _is_of_machine(error: Exception) -> bool:
    # Ray raises bare Exception too. ConnectionError: the caller knows which address is wrong.
    is_connection = isinstance(error, ConnectionError)
    return type(error) is Exception or (
        isinstance(error, OSError | RuntimeError) and not is_connection
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)


def _is_timeout(error: Exception) -> bool:
    # Ray raises bare Exception and RuntimeError here; only their messages differ.
    message = str(error).lower()
    return isinstance(error, TimeoutError) or any(part in message for part in _TIMEOUT_MESSAGES)


def _kill(started: set[psutil.Process]) -> None:
    processes = set(started)
    for process in started:
        with suppress(psutil.NoSuchProcess):
            processes |= set(process.children(recursive=True))
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=_SECONDS_TO_END)
