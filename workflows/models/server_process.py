"""Start, watch and stop the process of a model server, with all its children."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_WATCHDOG = Path(__file__).with_name("watchdog.py")
_NOT_FOR_SERVERS = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OMP_NUM_THREADS"}
_NOT_FOR_SERVERS |= {"OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "RAY_AUTH_TOKEN"}
"""Variables of this program's Python and of Ray's workers, and API keys."""
_TAIL_BYTES = 16_384
_TAIL_LINES = 20
_AFTER_KILL_S = 5.0
_KILLED = 128 + signal.SIGKILL


class ServerProcess:
    """A command under a watchdog, which ends it when this process ends, even if killed."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str | None], log: Path, stop_s: float
    ) -> None:
        """Start it, and append its output to `log`. environment: see `ServersSettings`."""
        self._stop_s, self._log = stop_s, log
        self._status: int | None = None
        given = {name: os.environ[name] for name in os.environ.keys() - _NOT_FOR_SERVERS}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            stream.write(f"\n{time.strftime('%F %T')} {' '.join(words)}\n".encode())
            stream.flush()
            self._began = stream.tell()
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", str(_WATCHDOG), str(stop_s), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={k: v for k, v in {**given, **environment}.items() if v is not None},
                start_new_session=True,
            )

    def exit_status(self, timeout_s: float = 0.0) -> int | None:
        """Wait up to timeout_s for the command to end; None while it runs."""
        assert self._watchdog.stdout is not None
        readable = select.poll()
        readable.register(self._watchdog.stdout)
        if self._status is None and readable.poll(timeout_s * 1000):
            # Nothing is written if the watchdog itself was killed.
            self._status = int(self._watchdog.stdout.readline() or _KILLED)
        return self._status

    def cpu_s(self) -> float:
        """Return the CPU time (s) that its running processes have used."""
        total = 0.0
        for process in _processes_of(self._watchdog.pid):
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def tail(self) -> str:
        """Return the last 20 non-empty lines of its output, indented."""
        with self._log.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._began, end - _TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
        last = [line.rstrip() for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
        return "\n".join(f"    {line}" for line in last)

    def kill(self) -> None:
        """Kill all its processes."""
        if self._watchdog.returncode is None:  # Else its id may belong to another session.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._watchdog.pid, signal.SIGKILL)

    def close(self) -> None:
        """Stop it, and wait until all its processes have ended. A second call does nothing."""
        if self._watchdog.returncode is not None:
            return
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        self.exit_status(self._stop_s + _AFTER_KILL_S)
        self.kill()
        psutil.wait_procs(_processes_of(self._watchdog.pid), _AFTER_KILL_S)
        self._watchdog.wait()  # Last: the session keeps its id until then.


def _processes_of(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def free_port(host: str) -> int:
    """Return a port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
