"""A server leaves nothing behind, however it and the process that started it end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from neuron_atlas.workflows.config.servers import ServersSettings
from neuron_atlas.workflows.models.server_process import ServerProcess, free_port

TINY = Path(__file__).with_name("tiny_server.py")
ROOT = Path(__file__).parents[3]
_PATIENCE_S = 60.0


def tiny(*words: str, **settings: object) -> ServersSettings:
    command = (sys.executable, str(TINY), "{port}", *words)
    return ServersSettings(command, stop_timeout_s=0.3, **settings)  # type: ignore[arg-type]


def launch(log: Path, port: int, *words: str) -> ServerProcess:
    return ServerProcess([sys.executable, str(TINY), str(port), *words], {}, log, 0.3)


def started(log: Path, *words: str) -> tuple[ServerProcess, list[int]]:
    """A server that answers, and its processes by its own log."""
    port = free_port("127.0.0.1")
    server = launch(log, port, *words)
    wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
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


def test_a_server_that_is_stopped_takes_all_that_it_started_with_it(tmp_path: Path) -> None:
    server, processes = started(tmp_path / "log", "--child")
    assert len(processes) == 2
    assert server.exit_status() is None
    server.close()
    assert gone(processes)
    assert server.exit_status() == 128 + signal.SIGTERM


def test_a_server_that_does_not_end_is_killed(tmp_path: Path) -> None:
    server, processes = started(tmp_path / "log", "--ignore-sigterm")
    server.close()
    assert gone(processes)
    assert server.exit_status() == 128 + signal.SIGKILL


def test_what_a_server_leaves_when_it_is_killed_ends_with_it(tmp_path: Path) -> None:
    server, (child, main) = started(tmp_path / "log", "--child")
    os.kill(main, signal.SIGKILL)
    wait_until(lambda: server.exit_status() == 128 + signal.SIGKILL)
    wait_until(lambda: gone([child]))
    server.close()


def test_all_of_a_server_ends_when_its_watchdog_is_killed(tmp_path: Path) -> None:
    server, processes = started(tmp_path / "log", "--child")
    watchdog = psutil.Process(processes[-1]).ppid()
    assert watchdog != os.getpid()
    os.kill(watchdog, signal.SIGKILL)
    wait_until(lambda: server.exit_status() is not None)
    server.close()
    assert gone(processes)


def test_nothing_is_left_of_one_that_is_closed_as_soon_as_it_begins(tmp_path: Path) -> None:
    server = launch(tmp_path / "log", free_port("127.0.0.1"), "--child")
    server.close()
    assert gone(said(tmp_path / "log"))


def test_a_server_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = (
        "import time; from pathlib import Path\n"
        "from tests.workflows.models.test_server_process import started\n"
        f"kept = started(Path({str(log)!r}), '--child'); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_until(lambda: log.is_file() and len(said(log)) == 2)
    processes = said(log)
    assert not gone(processes)
    starter.kill()
    starter.wait()
    wait_until(lambda: gone(processes))


def test_a_program_that_is_not_there_is_named_in_the_log(tmp_path: Path) -> None:
    server = ServerProcess(["/no/such/python"], {}, tmp_path / "log", 0.3)
    wait_until(lambda: server.exit_status() == 127)
    assert server.tail() == "    /no/such/python: No such file or directory"
    server.close()
