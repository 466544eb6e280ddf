"""A server of a simulator's model, run by the actor whose calls go to it."""

from __future__ import annotations

import asyncio
import http.client
import logging
import math
import secrets
import threading
import time
import urllib.request
from pathlib import Path

from neuron_atlas.tasks.models.failures import Stopped
from neuron_atlas.workflows.config.servers import PORT, ServersSettings
from neuron_atlas.workflows.models.server_process import ServerProcess, free_port
from neuron_atlas.workflows.run.errors import RunFailed

_log = logging.getLogger(__name__)

KEY_VARIABLE = "VLLM_API_KEY"
"""Where vLLM reads the key that requests must have. On a command line, all users would see it."""
_HOST = "127.0.0.1"
_LOOK_EVERY_S = 0.25
_ANSWERS_WITHIN_S = 10.0
_AFTER_MISS_S = 0.5
_WINDOW_S = 3600.0
_TAIL_LINES = 20


class ModelServer:
    """A server on this machine that is started again when its process ends. See `Servers`.

    Only the end of the process, or a request that times out while nothing else makes progress,
    counts as its death: a server that computes may leave its health check unanswered for minutes.
    """

    is_own = True
    is_direct = True

    def __init__(self, settings: ServersSettings, number: int, log: Path) -> None:
        """Start it, and wait until it answers. Raises RunFailed with the end of its log."""
        self.key = secrets.token_hex(32)
        self._settings, self._number, self._log = settings, number, log
        port = free_port(_HOST)
        self._root = f"http://{_HOST}:{port}"
        self._words = [
            self._numbered(word.replace(PORT, str(port)).replace("{host}", _HOST))
            for word in settings.words
        ]
        self._environment = {
            name: None if value is None else self._numbered(value)
            for name, value in settings.environment.items()
        } | {KEY_VARIABLE: self.key}
        self._ended, self._is_up = threading.Event(), threading.Event()
        self._failed, self._missed = "", -math.inf
        self._answered = time.monotonic()
        if problem := self._begin():
            raise RunFailed(self._account(problem))
        self._keeping = threading.Thread(target=self._keep, name="model-server", daemon=True)
        self._keeping.start()

    async def ready(self) -> None:
        """See `Servers`. Waits up to start_s for a server that is started again."""
        begun = time.monotonic()
        while not self._is_up.is_set() or time.monotonic() - self._missed < _AFTER_MISS_S:
            if self._failed or self._ended.is_set():
                raise Stopped(self._failed or f"server {self._number} was stopped")
            if time.monotonic() - begun > self._settings.start_s:
                raise Stopped(self._account(f"was not up again in {self._settings.start_s:g} s"))
            await asyncio.sleep(_LOOK_EVERY_S)

    def choose(self, affinity: str) -> str:
        """See `Servers`."""
        return f"{self._root}/v1"

    def answered(self, base_url: str) -> None:
        """See `Servers`."""
        self._answered = time.monotonic()

    def unreachable(self, base_url: str) -> bool:
        """See `Servers`: its process has just ended, or does not accept connections."""
        self._missed = time.monotonic()
        return self._missed - self._answered < self._settings.start_s

    def timed_out(self, base_url: str, timeout_s: float) -> None:
        """See `Servers`: kill it if it made no progress for so long."""
        written_s = time.time() - self._log.stat().st_mtime
        if min(time.monotonic() - self._answered, written_s) > timeout_s:
            _log.warning("server %d made no progress for %.0f s", self._number, timeout_s)
            self._process.kill()

    def close(self) -> None:
        """Stop it, and wait until nothing of it is left."""
        self._ended.set()
        self._keeping.join()
        self._is_up.clear()
        self._process.close()

    def _begin(self) -> str:
        """Start the process, and wait until it answers. Returns why it does not."""
        self._process = ServerProcess(
            self._words, self._environment, self._log, self._settings.stop_s
        )
        deadline = time.monotonic() + self._settings.start_s
        problem = ""
        while not (problem or _is_healthy(self._root)):
            status = self._process.exit_status(_LOOK_EVERY_S)
            if status is not None:
                problem = f"ended with status {status} before it answered"
            elif time.monotonic() > deadline:
                problem = f"did not answer within {self._settings.start_s:g} s"
            elif self._ended.is_set():
                problem = "was stopped"
        if problem:
            self._process.close()
        else:
            self._answered = time.monotonic()
            self._is_up.set()
        return problem

    def _keep(self) -> None:
        """Start the process again whenever it has ended."""
        restarts: list[float] = []
        problem = self._watch()
        while not self._ended.is_set():
            now = time.monotonic()
            restarts = [one for one in restarts if now - one < _WINDOW_S] + [now]
            if len(restarts) > self._settings.max_restarts:
                self._failed = (
                    f"{self._account(problem)}\n(simulate.servers.max_restarts: it may be started "
                    f"again {self._settings.max_restarts} times an hour)"
                )
                return
            _log.warning(
                "server %d %s: started again (%d; %d an hour at most)",
                *(self._number, problem, len(restarts), self._settings.max_restarts),
            )
            problem = self._begin() or self._watch()

    def _watch(self) -> str:
        """Wait until the process ends, and return how."""
        while not self._ended.is_set():
            status = self._process.exit_status(_LOOK_EVERY_S)
            if status is not None:
                self._is_up.clear()
                self._process.close()
                return f"ended with status {status}"
        return "was stopped"

    def _account(self, problem: str) -> str:
        tail = self._process.tail(_TAIL_LINES)
        return f"server {self._number} {problem}; its log {self._log} " + (
            f"ends:\n{tail}" if tail else "is empty"
        )

    def _numbered(self, word: str) -> str:
        return word.replace("{number}", str(self._number))


def _is_healthy(root: str) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{root}/health", timeout=_ANSWERS_WITHIN_S) as reply:
            return bool(reply.status == 200)
    except (OSError, http.client.HTTPException):
        return False
