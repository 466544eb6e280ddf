"""One run of a server's process: started, asked how it is, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from neuron_atlas.tasks.serve.settings import HOST, NUMBER, PORT, ServersSettings

KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM reads the key that requests must have. On a command line, all users would see it."""

_WATCHDOG = Path(__file__).with_name("watchdog.py")
_OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "OMP_NUM_THREADS")
"""Variables of this program's environment, or that Ray sets for its workers: not the server's."""
_SECRETS = ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "RAY_AUTH_TOKEN")
_TAIL_BYTES = 16_384
_AFTER_KILL_S = 5.0


class ServerProcess:
    """A server that was started, under a watchdog that ends it with this process."""

    def __init__(
        self, settings: ServersSettings, host: str, port: int, key: str, number: int, log: Path
    ) -> None:
        """Start it. Its output is added to `log`."""
        self._stop_s = settings.stop_s
        command = [
            word.replace(PORT, str(port)).replace(HOST, host).replace(NUMBER, str(number))
            for word in settings.words
        ]
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        with log.open("ab") as stream:
            stream.write(f"\n{time.strftime('%F %T')} {' '.join(command)}\n".encode())
            stream.flush()
            self._began = stream.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_WATCHDOG), str(settings.stop_s), *command],
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=stream,
                env=_environment(settings.environment, key, number),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Of the watchdog, whose session all are in that the server starts."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def tail(self, lines: int) -> list[str]:
        """The last lines of what this run wrote, empty ones left out."""
        with self._log.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._began, end - _TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]

    def close(self) -> None:
        """End it and all that it started, and wait for that."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._stop_s + _AFTER_KILL_S)
        # Where the watchdog itself was killed: all are of its session.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def free_port(host: str) -> int:
    """A port of this host that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _environment(given: Mapping[str, str | None], key: str, number: int) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _OWN + _SECRETS}
    for name, value in given.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.replace(NUMBER, str(number))
    return environment | {KEY_VARIABLE: key}
