"""Run a server for a simulator's model, in the actor that calls it."""

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

from neuron_atlas.tasks.models.failures import ProviderStoppedError
from neuron_atlas.workflows.config.servers import ServersSettings
from neuron_atlas.workflows.models.server_process import ServerProcess, free_port

_log = logging.getLogger(__name__)

_KEY_VARIABLE = "VLLM_API_KEY"
"""vLLM reads its API key from this variable. On a command line, all users could see it."""
_HOST = "127.0.0.1"
_LOOK_EVERY_S = 0.25
_ANSWERS_WITHIN_S = 10.0
_WINDOW_S = 3600.0
_MEASURE_EVERY_S = 5.0
_BUSY_CORES = 0.2
"""A server that uses more CPU than this is computing."""


class ModelServer:
    """A server on this machine that is restarted when its process ends. See `Servers`.

    A slow server is not restarted: while it computes, requests may go unanswered for minutes. It is
    killed only if a request times out while it makes no other progress: no answer, no line in its
    log, and little use of the CPU, or none of the first two for start_timeout_s. A server that ends
    before its first answer is restarted once, at another port.
    """

    is_own = True

    def __init__(self, settings: ServersSettings, number: int, log: Path) -> None:
        """Start it in the background; calls wait until it answers."""
        self.key = secrets.token_hex(32)
        self._settings, self._number, self._log = settings, number, log
        self._is_up, self._answered_at = False, -math.inf
        self._stop_reason = ""  # Why it is not restarted any more.
        self._cores_in_use = 0.0
        self._begin()
        self._supervisor = threading.Thread(
            target=self._supervise, name="model-server", daemon=True
        )
        self._supervisor.start()

    @property
    def waits_for(self) -> str:
        """What calls wait for now; "" if it answers."""
        if self._is_up:
            return ""
        return f"server {self._number} to answer, after a start or while busy (log: {self._log})"

    async def ready(self) -> None:
        """See `Servers`. Waits up to start_timeout_s."""
        deadline = time.monotonic() + self._settings.start_timeout_s
        while not self._is_up:
            if self._stop_reason:
                raise ProviderStoppedError(self._stop_reason)
            if time.monotonic() > deadline:
                waited = f"did not answer within {self._settings.start_timeout_s:g} s"
                raise ProviderStoppedError(self._with_log(waited))
            await asyncio.sleep(_LOOK_EVERY_S)

    def choose(self, affinity: str) -> str:
        """See `Servers`."""
        return self._base_url

    def mark_answered(self, base_url: str) -> None:
        """See `Servers`."""
        self._answered_at = time.monotonic()

    def mark_unreachable(self, base_url: str) -> bool:
        """See `Servers`: calls wait until it answers again, after a restart if it has ended."""
        self._is_up = False
        return time.monotonic() - self._answered_at < self._settings.start_timeout_s

    def mark_timed_out(self, base_url: str, timeout_s: float) -> None:
        """See `Servers`: kill it if it made no progress for timeout_s."""
        written_s = time.time() - self._log.stat().st_mtime
        quiet_s = min(time.monotonic() - self._answered_at, written_s)
        is_busy = self._cores_in_use > _BUSY_CORES and quiet_s < self._settings.start_timeout_s
        if quiet_s > timeout_s and not is_busy:
            _log.warning("server %d made no progress for %.0f s", self._number, timeout_s)
            self._process.kill()

    def close(self) -> None:
        """Stop it, and wait until all its processes have ended."""
        self._stop_reason = self._stop_reason or f"server {self._number} was stopped"
        self._supervisor.join()

    def _begin(self) -> None:
        """Start the process, at a new address."""
        port, number = str(free_port(_HOST)), str(self._number)

        def fill_in(text: str) -> str:
            return text.replace("{host}", _HOST).replace("{port}", port).replace("{number}", number)

        environment = {
            name: value and fill_in(value) for name, value in self._settings.environment.items()
        }
        self._base_url = f"http://{_HOST}:{port}/v1"
        self._process = ServerProcess(
            [fill_in(word) for word in self._settings.command_line],
            environment | {_KEY_VARIABLE: self.key},
            self._log,
            self._settings.stop_timeout_s,
        )

    def _supervise(self) -> None:
        """Restart the process whenever it ends, up to max_restarts times an hour."""
        ends: list[float] = []
        while problem := self._watch():
            now = time.monotonic()
            ends = [one for one in ends if now - one < _WINDOW_S] + [now]
            most = self._settings.max_restarts
            has_answered = math.isfinite(self._answered_at)
            if len(ends) > (most if has_answered else min(most, 1)):
                limit = f"\n(simulate.servers.max_restarts: {most} an hour)" if has_answered else ""
                self._stop_reason = self._with_log(problem) + limit
                return
            _log.warning(
                "server %d %s: started again (%d; %d an hour at most)",
                *(self._number, problem, len(ends), most),
            )
            self._begin()

    def _watch(self) -> str:
        """Wait until the process ends, and return how it ended; "" if it was stopped."""
        begun = measured_at = time.monotonic()
        cpu_s = self._cores_in_use = 0.0
        while (
            status := self._process.exit_status(_LOOK_EVERY_S)
        ) is None and not self._stop_reason:
            if not self._is_up and self._is_reached():
                self._is_up, self._answered_at = True, time.monotonic()
            elapsed_s = time.monotonic() - measured_at
            if elapsed_s >= _MEASURE_EVERY_S:
                before, cpu_s = cpu_s, self._process.cpu_s()
                self._cores_in_use = max(0.0, cpu_s - before) / elapsed_s
                measured_at += elapsed_s
        self._is_up = False
        self._process.close()
        if self._stop_reason:
            return ""
        when = "" if self._answered_at > begun else " before it answered"
        return f"ended with status {status}{when}"

    def _is_reached(self) -> bool:
        """Return whether it accepts its key, which no other server on its port would."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"{self._base_url}/models")
        request.add_header("Authorization", f"Bearer {self.key}")
        try:
            with direct.open(request, timeout=_ANSWERS_WITHIN_S) as reply:
                return bool(reply.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def _with_log(self, problem: str) -> str:
        tail = self._process.tail()
        end = f"ends:\n{tail}" if tail else "is empty"
        return f"server {self._number} {problem}; its log {self._log} {end}"
