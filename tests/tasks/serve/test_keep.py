"""A server is waited for, watched, and started again."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from neuron_atlas.tasks.serve.health import is_healthy, served_models
from neuron_atlas.tasks.serve.keep import Post, ServerFailed, State, keep_serving
from neuron_atlas.tasks.serve.settings import ServersSettings
from tests.tasks.serve.test_watchdog import gone, said, tiny, wait_until

KEY = "key-of-this-run"


@dataclass
class Kept:
    """A server that a thread keeps, and all that it told."""

    log: Path
    states: list[State] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)

    @property
    def base_url(self) -> str | None:
        return self.states[-1].base_url if self.states else None

    def process(self) -> int:
        return said(self.log)[-1]

    def kill(self) -> None:
        os.kill(self.process(), signal.SIGKILL)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuron_atlas.tasks.serve.keep._LOOK_EVERY_S", 0.03)


@contextmanager
def kept(settings: ServersSettings, log: Path, model: str = "tiny") -> Iterator[Kept]:
    watched, ended = Kept(log), threading.Event()
    post = Post(0, "127.0.0.1", model, log, KEY)

    def work() -> None:
        try:
            keep_serving(settings, post, watched.states.append, ended)
        except ServerFailed as error:
            watched.failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield watched
    finally:
        ended.set()
        thread.join(10)
        assert not thread.is_alive()


def test_a_server_is_told_of_once_it_answers_and_ends_when_it_shall(tmp_path: Path) -> None:
    with kept(tiny(), tmp_path / "log") as server:
        wait_until(lambda: server.base_url is not None)
        assert is_healthy(str(server.base_url).removesuffix("/v1"), 1.0)
        assert served_models(str(server.base_url), KEY, 1.0) == ["tiny"]
        process = server.process()
    assert gone([process])
    assert server.failed == []


@pytest.mark.parametrize("how", ["killed", "deaf"])
def test_a_server_that_dies_or_does_not_answer_is_started_again(tmp_path: Path, how: str) -> None:
    words = ("--deaf-after", "2") if how == "deaf" else ()
    with kept(tiny(*words, unhealthy_s=0.2), tmp_path / "log") as server:
        wait_until(lambda: server.base_url is not None)
        first, process = server.base_url, server.process()
        if how == "killed":
            server.kill()
        wait_until(lambda: server.base_url not in (None, first))
        told = [state for state in server.states if state.base_url is None and state.restarts]
        assert (
            told[0].died
            == {
                "killed": "ended with status 137",
                "deaf": "did not answer GET /health for 0.2 s",
            }[how]
        )
        assert server.states[-1].restarts == 1
        assert gone([process])
        assert not gone([server.process()])


def test_a_server_that_dies_too_often_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    with kept(tiny(max_restarts=1), tmp_path / "log") as server:
        for runs in (1, 2):
            wait_until(lambda: server.log.is_file() and len(said(server.log)) == runs)  # noqa: B023
            wait_until(lambda: server.base_url is not None)
            server.kill()
            wait_until(lambda: server.base_url is None)
        wait_until(lambda: bool(server.failed))
    told = str(server.failed[0])
    assert f"server 0 ended with status 137; its log {server.log} ends:\n    server " in told
    assert "1 times within an hour" in told
    assert "simulate.servers.max_restarts" in told


@pytest.mark.parametrize(
    ("settings", "model", "told"),
    [
        (tiny("--fail", "no such weights"), "tiny", "ended with status 1 before it answered; "),
        (tiny("--deaf-after", "0", start_s=0.2), "tiny", "did not answer within 0.2 s; its log "),
        (tiny(), "large", "server 0 serves tiny and not 'large': set simulate.client.model"),
    ],
)
def test_a_server_that_cannot_be_used_is_not_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: ServersSettings,
    model: str,
    told: str,
) -> None:
    monkeypatch.setattr("neuron_atlas.tasks.serve.keep._ANSWERS_WITHIN_S", 0.2)
    with kept(settings, tmp_path / "log", model) as server:
        wait_until(lambda: bool(server.failed))
    assert told in str(server.failed[0])
    assert ("no such weights" in str(server.failed[0])) == ("--fail" in settings.command)
    assert max(state.restarts for state in server.states or [State(0)]) == 0


def test_a_server_gets_its_key_and_settings_by_its_environment_and_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-somebody-else")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("TAKEN", "away")
    command = (sys.executable, str(Path(__file__).with_name("tiny_server.py")), "{port}")
    environment = {"TAKEN": None, "CORE": "core-{number}"}
    with kept(ServersSettings(command, environment=environment), tmp_path / "log") as server:
        wait_until(lambda: server.base_url is not None)
        url = str(server.base_url).replace("/v1", "/environment")
        seen = json.load(urllib.request.urlopen(url, timeout=5))
        words = psutil.Process(server.process()).cmdline()
    assert seen["VLLM_API_KEY"] == KEY
    assert seen["CORE"] == "core-0"
    assert not {"OPENAI_API_KEY", "PYTHONPATH", "TAKEN"} & seen.keys()
    assert not any(KEY in word for word in words)
    assert KEY not in (tmp_path / "log").read_text(encoding="utf-8")
