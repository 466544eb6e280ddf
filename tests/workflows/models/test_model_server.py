"""A model server is waited for, started again, and judged by its progress."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from neuron_atlas.tasks.models.failures import ProviderStoppedError
from neuron_atlas.workflows.config.servers import ServersSettings
from neuron_atlas.workflows.models import model_server
from neuron_atlas.workflows.models.model_server import ModelServer
from neuron_atlas.workflows.models.server_process import free_port
from tests.workflows.models.test_server_process import TINY, gone, said, tiny, wait_until


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "_LOOK_EVERY_S", 0.03)
    monkeypatch.setattr(model_server, "_ANSWERS_WITHIN_S", 0.5)


@contextmanager
def running(settings: ServersSettings, log: Path) -> Iterator[ModelServer]:
    server = ModelServer(settings, 0, log)
    try:
        yield server
    finally:
        server.close()


def get(server: ModelServer, path: str = "/models", timeout_s: float = 5) -> bytes:
    request = urllib.request.Request(f"{server.choose('')}{path}")
    request.add_header("Authorization", f"Bearer {server.key}")
    with urllib.request.urlopen(request, timeout=timeout_s) as reply:
        return bytes(reply.read())


def kill(log: Path) -> None:
    os.kill(said(log)[-1], signal.SIGKILL)


def test_a_server_answers_with_its_key_once_it_is_there_and_ends_when_it_is_closed(
    tmp_path: Path,
) -> None:
    with running(tiny(), tmp_path / "log") as server:
        asyncio.run(server.ready())
        assert json.loads(get(server))["data"] == [{"id": "tiny"}]
        processes = said(tmp_path / "log")
    assert gone(processes)


def test_calls_wait_for_a_server_that_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    with running(tiny(), log) as server:
        asyncio.run(server.ready())
        kill(log)
        assert server.mark_unreachable(server.choose(""))
        asyncio.run(server.ready())
        assert get(server)
        first, second = said(log)
        assert gone([first])
        assert not gone([second])
    assert "server 0 ended with status 137: started again (1; 5 an hour at most)" in caplog.text


def test_calls_wait_for_a_restart_no_longer_than_start_s(tmp_path: Path) -> None:
    with running(tiny(start_timeout_s=30.0), tmp_path / "log") as server:
        asyncio.run(server.ready())
        server._settings = tiny(start_timeout_s=0.05)
        os.kill(said(tmp_path / "log")[-1], signal.SIGSTOP)
        server.mark_unreachable(server.choose(""))
        with pytest.raises(
            ProviderStoppedError, match=r"^server 0 did not answer within 0\.05 s; its log "
        ):
            asyncio.run(server.ready())


def test_calls_to_a_server_that_was_closed_are_stopped(tmp_path: Path) -> None:
    with running(tiny(), tmp_path / "log") as server:
        asyncio.run(server.ready())
    with pytest.raises(ProviderStoppedError, match=r"^server 0 was stopped$"):
        asyncio.run(server.ready())


def test_a_server_that_dies_too_often_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(tiny(max_restarts=1), log) as server:
        asyncio.run(server.ready())
        kill(log)
        wait_until(lambda: len(said(log)) == 2)
        asyncio.run(server.ready())
        kill(log)
        with pytest.raises(ProviderStoppedError) as raised:
            wait_until(lambda: asyncio.run(server.ready()) is not None)
    assert f"server 0 ended with status 137; its log {log} ends:\n    server " in str(raised.value)
    assert "simulate.servers.max_restarts" in str(raised.value)


def test_a_busy_server_is_left_alone_and_one_without_progress_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running(tiny(), log) as server:
        asyncio.run(server.ready())
        address = server.choose("")
        server.mark_timed_out(address, timeout_s=3600)  # It answered within that time.
        time.sleep(0.1)
        os.utime(log)  # It writes to its log.
        server.mark_timed_out(address, timeout_s=0.1)
        assert len(said(log)) == 1
        assert get(server)
        os.utime(log, (0, 0))
        server.mark_answered(address)  # It answers other requests.
        server.mark_timed_out(address, timeout_s=5)
        assert get(server)
        time.sleep(0.1)
        server.mark_timed_out(address, timeout_s=0.1)
        wait_until(lambda: len(said(log)) == 2)
        asyncio.run(server.ready())
        assert get(server)


def test_a_server_that_computes_is_left_alone_though_it_answers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As vLLM, which answers no health check for a minute while it ranks a whole vocabulary."""
    monkeypatch.setattr(model_server, "_MEASURE_EVERY_S", 0.2)
    log = tmp_path / "log"
    with running(tiny(start_timeout_s=60.0), log) as server:
        asyncio.run(server.ready())
        assert server.waits_for == ""
        with pytest.raises(TimeoutError):
            get(server, "/busy", timeout_s=1)
        wait_until(lambda: server._cores_in_use > 0.2)
        os.utime(log, (0, 0))
        server.mark_timed_out(server.choose(""), timeout_s=0.1)
        assert server.mark_unreachable(server.choose(""))  # Calls wait and do not fail.
        assert server.waits_for.startswith("server 0 to answer, after a start or while busy")
        assert "made no progress" not in caplog.text
        server._settings = tiny(start_timeout_s=0.05)  # It has been silent for longer than this.
        server.mark_timed_out(server.choose(""), timeout_s=0.01)
        wait_until(lambda: len(said(log)) == 2)


def test_a_server_whose_port_was_taken_in_the_meantime_is_started_again_at_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = subprocess.Popen(
        [sys.executable, str(TINY), str(port := free_port("127.0.0.1"))],
        env={**os.environ, "VLLM_API_KEY": "of-another"},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        ports = iter([port, free_port("127.0.0.1")])
        monkeypatch.setattr(model_server, "free_port", lambda host: next(ports))
        with running(tiny(), tmp_path / "log") as server:
            asyncio.run(server.ready())
            assert str(port) not in server.choose("")
            assert get(server)
    finally:
        foreign.kill()
        foreign.wait()
    assert "server 0 ended with status 1 before it answered: started again (1; " in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (tiny("--fail", "no such weights"), "server 0 ended with status 1 before it answered; "),
        (tiny("--deaf", start_timeout_s=0.2), "server 0 did not answer within 0.2 s; its log "),
    ],
)
def test_a_server_that_never_answers_stops_the_run(
    tmp_path: Path, settings: ServersSettings, message: str
) -> None:
    with (
        running(settings, tmp_path / "log") as server,
        pytest.raises(ProviderStoppedError) as raised,
    ):
        asyncio.run(server.ready())
    assert str(raised.value).startswith(message)
    assert ("no such weights" in str(raised.value)) == ("--fail" in settings.command)
    assert gone(said(tmp_path / "log"))


def test_a_server_gets_its_key_and_settings_by_its_environment_and_none_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-another")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("TAKEN", "away")
    command = (sys.executable, str(TINY), "{port}")
    environment = {"TAKEN": None, "CORE": "core-{number}"}
    settings = ServersSettings(command, environment=environment, stop_timeout_s=0.3)
    with running(settings, tmp_path / "log") as server:
        asyncio.run(server.ready())
        url = server.choose("").replace("/v1", "/environment")
        seen = json.load(urllib.request.urlopen(url, timeout=5))
        words = psutil.Process(said(tmp_path / "log")[-1]).cmdline()
    assert seen["VLLM_API_KEY"] == server.key
    assert len(server.key) == 64
    assert seen["CORE"] == "core-0"
    assert not {"OPENAI_API_KEY", "PYTHONPATH", "TAKEN"} & seen.keys()
    assert not any(server.key in word for word in words)
    assert server.key not in (tmp_path / "log").read_text(encoding="utf-8")
