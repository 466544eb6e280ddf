"""Keeps one server up: started, waited for, watched, and started again when it dies."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from neuron_atlas.tasks.serve.health import is_healthy, served_models
from neuron_atlas.tasks.serve.process import ServerProcess, free_port
from neuron_atlas.tasks.serve.settings import ServersSettings

_LOOK_EVERY_S = 0.25
_ASK_EVERY_S = 2.0
_ANSWERS_WITHIN_S = 10.0
_WINDOW_S = 3600.0
_TAIL_LINES = 20
_NOTE_LENGTH = 100


class ServerFailed(Exception):
    """A server that could not be started, or died too often; with the end of its log."""


@dataclass(frozen=True)
class Post:
    """What a server is to be. number: from 0. host: where it listens. model: what it must serve.
    key: what requests to it must carry."""

    number: int
    host: str
    model: str
    log: Path
    key: str = field(repr=False)


@dataclass(frozen=True)
class State:
    """How a server is. base_url: where it answers now, if it does. note: the last line that it said
    while it starts. restarts: how often it was started again. died: what became of it before that,
    or, where it is given up, altogether."""

    number: int
    base_url: str | None = None
    note: str = ""
    restarts: int = 0
    died: str = ""
    is_given_up: bool = False


def keep_serving(
    settings: ServersSettings, post: Post, tell: Callable[[State], None], ended: threading.Event
) -> None:
    """Keep a server up until `ended` is set, and stop it then.

    tell: called with its state again and again, so that a silence means that nobody keeps it any
    more. Raises ServerFailed where it never answers, or dies too often.
    """
    deaths: deque[float] = deque()
    state, has_served = State(post.number), False
    while True:
        run = _Run(settings, post, state, tell, ended)
        with closing(run):
            why = run.begin()
            if not why:
                has_served = True
                why = run.watch()
                tell(state)
            account = run.account(why)
        if ended.is_set():
            return
        deaths.append(time.monotonic())
        while deaths[0] < time.monotonic() - _WINDOW_S:
            deaths.popleft()
        if not has_served:
            raise ServerFailed(account)
        if len(deaths) > settings.max_restarts:
            raise ServerFailed(
                f"{account}\n(it was started again {settings.max_restarts} times within an hour, "
                "which is what simulate.servers.max_restarts allows)"
            )
        state = replace(state, restarts=state.restarts + 1, died=why)
        tell(state)


class _Run:
    """One process of a server, from its start to its end."""

    def __init__(
        self,
        settings: ServersSettings,
        post: Post,
        state: State,
        tell: Callable[[State], None],
        ended: threading.Event,
    ) -> None:
        self._settings, self._post, self._state = settings, post, state
        self._tell, self._ended = tell, ended
        port = free_port(post.host)
        self._root = f"http://{post.host}:{port}"
        self._server = ServerProcess(settings, post.host, port, post.key, post.number, post.log)

    def begin(self) -> str:
        """Wait until it answers; why it does not, or nothing. Raises ServerFailed where it serves
        another model than it should."""
        deadline = time.monotonic() + self._settings.start_s
        while not is_healthy(self._root, _ANSWERS_WITHIN_S):
            status = self._server.exit_status()
            if status is not None:
                return f"ended with status {status} before it answered"
            if time.monotonic() > deadline:
                return f"did not answer within {self._settings.start_s:g} s"
            said = self._server.tail(1)
            self._tell(replace(self._state, note="".join(said)[:_NOTE_LENGTH]))
            if self._ended.wait(_LOOK_EVERY_S):
                return "was stopped"
        return self._check_model()

    def watch(self) -> str:
        """Wait until it dies, does not answer any more, or is to end; which of these."""
        patience_s = self._settings.unhealthy_s
        ask_every_s = min(_ASK_EVERY_S, patience_s / 2)
        answered = asked = time.monotonic()
        while not self._ended.wait(_LOOK_EVERY_S):
            status = self._server.exit_status()
            if status is not None:
                return f"ended with status {status}"
            self._tell(replace(self._state, base_url=f"{self._root}/v1"))
            if time.monotonic() - asked < ask_every_s:
                continue
            asked = time.monotonic()
            if is_healthy(self._root, min(_ANSWERS_WITHIN_S, patience_s)):
                answered = time.monotonic()
            elif time.monotonic() - answered > patience_s:
                return f"did not answer GET /health for {patience_s:g} s"
        return "was stopped"

    def account(self, why: str) -> str:
        """What became of it, with the end of its log."""
        tail = "\n".join(f"    {line}" for line in self._server.tail(_TAIL_LINES))
        return f"server {self._post.number} {why}; its log {self._post.log} " + (
            f"ends:\n{tail}" if tail else "is empty"
        )

    def close(self) -> None:
        self._server.close()

    def _check_model(self) -> str:
        try:
            names = served_models(f"{self._root}/v1", self._post.key, _ANSWERS_WITHIN_S)
        except OSError as error:
            return f"answers GET /health, and not GET /v1/models: {error}"
        if names is not None and self._post.model not in names:
            raise ServerFailed(
                f"server {self._post.number} serves {', '.join(names)} and not "
                f"{self._post.model!r}: set simulate.client.model to that, or the name that the "
                "server gives it (vLLM: --served-model-name) in simulate.servers.command"
            )
        return ""
