"""A server leaves nothing behind, however it and those who started it end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from neuron_atlas.tasks.serve.health import is_healthy
from neuron_atlas.tasks.serve.process import ServerProcess, free_port
from neuron_atlas.tasks.serve.settings import ServersSettings

TINY = Path(__file__).with_name("tiny_server.py")
ROOT = Path(__file__).parents[3]
_PATIENCE_S = 10.0


def tiny(*words: str, **settings: object) -> ServersSettings:
    command = (sys.executable, str(TINY), "{port}", *words)
    return ServersSettings(command, stop_s=0.3, **settings)  # type: ignore[arg-type]


def started(settings: ServersSettings, log: Path) -> tuple[ServerProcess, list[int]]:
    """A server that answers, and the numbers of the processes that it said it consists of."""
    port = free_port("127.0.0.1")
    server = ServerProcess(settings, "127.0.0.1", port, "key", 0, log)
    wait_until(lambda: is_healthy(f"http://127.0.0.1:{port}", 1.0))
    return server, said(log)


def said(log: Path) -> list[int]:
    words = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    return [int(line[1]) for line in words if line and line[0] in _OURS]


_OURS = ("server", "child")


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, "it never got there"
        time.sleep(0.02)


def gone(processes: list[int]) -> bool:
    return not any(map(_runs, processes))


def _runs(process: int) -> bool:
    try:
        return bool(psutil.Process(process).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def left_of_session(session: int) -> list[int]:
    found = []
    for process in psutil.pids():
        with suppress(ProcessLookupError):
            if os.getsid(process) == session and _runs(process):
                found.append(process)
    return found


def test_a_server_that_is_stopped_takes_all_that_it_started_with_it(tmp_path: Path) -> None:
    server, processes = started(tiny("--child"), tmp_path / "log")
    assert len(processes) == 2
    assert server.exit_status() is None
    server.close()
    assert gone(processes)
    assert server.exit_status() == 128 + signal.SIGTERM


def test_a_server_that_does_not_end_is_killed(tmp_path: Path) -> None:
    server, processes = started(tiny("--ignore-sigterm"), tmp_path / "log")
    server.close()
    assert gone(processes)
    assert server.exit_status() == 128 + signal.SIGKILL


def test_what_a_server_leaves_when_it_is_killed_ends_with_it(tmp_path: Path) -> None:
    server, (child, main) = started(tiny("--child"), tmp_path / "log")
    os.kill(main, signal.SIGKILL)
    wait_until(lambda: server.exit_status() == 128 + signal.SIGKILL)
    assert gone([child])
    server.close()


@pytest.mark.parametrize("which", ["first", "second"])
def test_all_of_a_server_ends_when_one_of_those_that_watch_it_is_killed(
    tmp_path: Path, which: str
) -> None:
    server, processes = started(tiny("--child"), tmp_path / "log")
    (second,) = psutil.Process(server.pid).children()
    os.kill(server.pid if which == "first" else second.pid, signal.SIGKILL)
    wait_until(lambda: gone([*processes, second.pid]) and server.exit_status() is not None)
    server.close()


def test_nothing_is_left_where_it_is_killed_in_the_moment_at_which_it_begins(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tiny(), "127.0.0.1", free_port("127.0.0.1"), "key", 0, tmp_path / "log")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not left_of_session(server.pid))
    server.close()


def test_a_server_ends_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = (
        "import time; from pathlib import Path; from tests.tasks.serve.test_watchdog import *\n"
        f"started(tiny('--child'), Path({str(log)!r})); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_until(lambda: log.is_file() and len(said(log)) == 2)
    processes = said(log)
    assert not gone(processes)
    starter.kill()
    starter.wait()
    wait_until(lambda: gone(processes))


def test_a_program_that_is_not_there_is_told_in_the_log(tmp_path: Path) -> None:
    settings = ServersSettings(("/no/such/python", "{port}"))
    server = ServerProcess(settings, "127.0.0.1", 1, "key", 0, tmp_path / "log")
    wait_until(lambda: server.exit_status() == 127)
    assert server.tail(1) == ["/no/such/python: No such file or directory"]
    server.close()
