"""Run a command, and kill all of its session when the command or the caller of this ends.

    python watchdog.py SECONDS COMMAND ...

The caller makes it the leader of a session, and holds the other ends of standard input and output.
When standard input closes, because the caller closed it or was killed, the command gets SIGTERM and
SECONDS to end. Then its exit status goes to standard output, and the whole session is killed.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

_LOOK_EVERY_S = 0.05


def main() -> None:
    """See above."""
    # What goes on is no child of the caller: Ray kills a worker's children when the worker ends,
    # which would leave the command's own children without anybody to end them.
    if os.fork():
        os._exit(0)
    status = _run(float(sys.argv[1]), sys.argv[2:])
    with suppress(OSError):
        os.write(1, f"{status}\n".encode())
    os.killpg(0, signal.SIGKILL)


def _run(stop_s: float, command: list[str]) -> int:
    """Return the command's exit status: 128 and the signal's number if a signal ended it."""
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, stderr=2)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return 127
    while server.poll() is None and not select.select([0], [], [], _LOOK_EVERY_S)[0]:
        pass
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(stop_s)
    server.kill()
    status = server.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    main()
