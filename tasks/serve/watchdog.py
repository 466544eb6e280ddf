"""Runs a server, and leaves nothing of it behind, however those end who wanted it.

    python watchdog.py SECONDS COMMAND ...

The server ends when it is told to (SIGTERM), and when standard input closes: whoever started this
holds the other end, which closes with them, also where they are killed. Then the server has SECONDS
to end by itself; what is left of it and of all that it started is killed. The exit status is the
server's, or 128 and the number of the signal that ended it.

It is run by its path, without the program's packages, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LOOK_EVERY_S = 0.05


def main() -> int:
    """See above.

    Two processes watch, for Ray kills the children of a worker that ends, with SIGKILL and before
    standard input closes. Where the first one is killed the second still ends the server; where the
    second is, the first one finds what is left.
    """
    stop_s, command = float(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # Until it is known what to do.
    first = os.getpid()
    second = os.fork()
    if not second:
        return _run(stop_s, command, first)
    _adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: _tell(second))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    return _end(os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]))


def _run(stop_s: float, command: list[str], first: int) -> int:
    _adopt_orphans()
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != first:
        ending.set()
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    threading.Thread(target=_wait_for_parent, args=(ending,), daemon=True).start()
    while server.poll() is None and not ending.wait(_LOOK_EVERY_S):
        pass
    if server.poll() is None:
        server.terminate()
        deadline = time.monotonic() + stop_s
        while server.poll() is None and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S)
    server.kill()
    return _end(server.wait())


def _tell(second: int) -> None:
    with suppress(ProcessLookupError):  # It has just ended.
        os.kill(second, signal.SIGTERM)


def _adopt_orphans() -> None:
    """What the server starts and leaves is then below this process, and found at the end."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _wait_for_parent(ending: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ending.set()


def _end(status: int) -> int:
    """Kill every process below this one, and those that they started meanwhile; the exit status,
    by that of the process that has ended."""
    while left := psutil.Process().children(recursive=True):
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=1)
    return status if status >= 0 else 128 - status


def _end_with_parent() -> None:
    """In the server, before it begins: be killed should the process be that started it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
