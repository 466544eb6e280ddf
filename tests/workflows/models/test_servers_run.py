"""The whole program with servers that it starts for its simulator, killed and left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuron_atlas.workflows.models.server_process import free_port
from tests.workflows.killing import without_answers
from tests.workflows.programs import Program, program
from tests.workflows.runs import ROOT, command

pytestmark = pytest.mark.slow

MODEL = "gpt-4o"
"""What the provider on loopback calls itself."""
_PATIENCE_S = 120.0
_TO_END_S = 150.0
"""Ray's processes wait a minute for a GCS that was killed to come back, before they end."""
_STEADY = ["layer", "neuron", "explanation", "sample_id", "purpose", "visual", "text", "status"]


def overrides(out: Path, logs: Path, *more: str) -> list[str]:
    logs.mkdir(exist_ok=True)
    words = [sys.executable, "-m", "tests.loopback.served", "--port", "{port}"]
    words += ["--log", f"{logs}/asked-{{number}}.jsonl", "--models", MODEL]
    listed = ",".join(f"'{word}'" for word in words)
    return [
        *("data.count=60", "capture.layers=[1]", "capture.top_n=16", "describe=given"),
        *("explain=dissect", "explain.neurons.count=4", "explain.neurons_per_task=2"),
        *("score.resamples=100", "cluster.cpus=2", f"out={out}"),
        "simulate=vllm",
        f"simulate.client.model={MODEL}",
        "simulate.client.concurrency=4",
        "simulate.image_size=200",
        f"simulate.servers.command=[{listed}]",
        f"+simulate.servers.environment.PYTHONPATH='{ROOT}'",
        f"+simulate.servers.environment.MARK='{logs}'",
        "simulate.servers.count=2",
        *more,
    ]


def run(*settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*settings), cwd=ROOT, capture_output=True, text=True, check=False)


_OF_TWO = 4
"""Processes of two servers: each, and its watchdog."""


def servers(logs: Path) -> list[psutil.Process]:
    """The processes of servers that write to `logs`, watchdogs included."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == str(logs) and process.status() != "zombie":
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill(logs: Path) -> None:
    """SIGKILL the servers, not their watchdogs."""
    for process in servers(logs):
        if "-I" not in process.cmdline():
            os.kill(process.pid, signal.SIGKILL)


def words_of(process: psutil.Process) -> list[str]:
    return process.info["cmdline"] or []


def asked(logs: Path) -> dict[str, list[dict[str, Any]]]:
    """What each server was asked that it answered, in order."""
    return {
        path.stem: [
            line
            for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())
            if line["answered"]
        ]
        for path in sorted(logs.glob("asked-*.jsonl"))
    }


def simulations(out: Path) -> pa.Table:
    table = pa.concat_tables(
        pq.read_table(path) for path in out.glob("artifacts/simulate/*/simulations-*.parquet")
    )
    return table.select(_STEADY).sort_by([(name, "ascending") for name in _STEADY[:5]])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # Which nothing here may go by.
        patch.delenv("NO_PROXY", raising=False)
        finished = run(*overrides(folder / "out", folder / "logs"))
    assert finished.returncode == 0, finished.stderr
    logs = folder / "out" / "servers"
    assert f"servers    start within 900 s; their logs: {logs}" in finished.stderr
    assert "not logged" not in finished.stderr
    return folder


@pytest.fixture
def earlier(undisturbed: Path, tmp_path: Path) -> Path:
    """The folder of the same run as it was before anything was simulated."""
    without_answers(undisturbed / "out", tmp_path / "out", ("simulate", "score", "report"))
    return tmp_path / "out"


def test_all_is_rated_and_no_server_is_left(undisturbed: Path) -> None:
    assert set(simulations(undisturbed / "out")["status"].to_pylist()) == {"ok"}
    assert servers(undisturbed / "logs") == []


def test_both_servers_have_their_part(undisturbed: Path) -> None:
    assert all(asked(undisturbed / "logs").values())
    assert len(asked(undisturbed / "logs")) == 2


def test_a_run_whose_server_is_killed_has_the_same_rows_and_never_shows_the_key(
    undisturbed: Path, earlier: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    slow = overrides(earlier, logs, "simulate.servers.arguments=['--latency','0.2']")
    with program(tmp_path / "said", *slow) as running:
        running.run_until(lambda: [len(one) >= 3 for one in asked(logs).values()] == [True, True])
        keys = {process.environ()["VLLM_API_KEY"] for process in servers(logs)}
        words = [word for process in psutil.process_iter(["cmdline"]) for word in words_of(process)]
        kill(logs)
        assert running.end() == 0, running.said()
    assert "ended with status 137: started again (1; 5 an hour at most)" in running.said()
    assert simulations(earlier).equals(simulations(undisturbed / "out"))
    assert servers(logs) == []
    with sqlite3.connect(earlier / "journal.sqlite") as database:
        lost = database.execute("SELECT count(*) FROM calls WHERE outcome IS NULL").fetchone()[0]
    assert lost == 0
    assert {len(key) for key in keys} == {64}
    assert not any(key in word for key in keys for word in words)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or not any(key.encode() in path.read_bytes() for key in keys)


def test_a_signal_stops_a_run_within_a_part_and_loses_no_call(
    undisturbed: Path, earlier: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    slow = overrides(earlier, logs, "simulate.servers.arguments=['--latency','2']")
    with program(tmp_path / "said", *slow) as running:
        running.run_until(lambda: sum(map(len, asked(logs).values())) >= 8)
        assert running.terminate() == 130, running.said()
    assert not list(earlier.glob("artifacts/simulate/*/simulations-*.parquet"))
    assert servers(logs) == []
    assert "have no result" not in running.said()
    assert "Traceback" not in running.said()
    again = run(*overrides(earlier, logs))
    assert again.returncode == 0, again.stderr
    assert simulations(earlier).equals(simulations(undisturbed / "out"))


@pytest.mark.parametrize("victim", ["driver", "raylet", "gcs_server"])
def test_whatever_of_a_run_is_killed_no_server_is_left(
    earlier: Path, tmp_path: Path, victim: str
) -> None:
    logs = tmp_path / "logs"
    slow = overrides(earlier, logs, "simulate.servers.arguments=['--latency','0.5']")
    with program(tmp_path / "said", *slow) as running:
        wait_until(running, lambda: sum(map(len, asked(logs).values())) >= 3)
        wait_until(running, lambda: len(servers(logs)) == _OF_TWO)
        if victim == "driver":
            running.process.kill()
        else:
            (process,) = [one for one in running.processes() if one.name() == victim]
            process.kill()
        wait_for_none(logs)


def test_a_driver_that_is_killed_leaves_no_server_on_a_cluster_that_goes_on(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = tmp_path / "logs"
    slow = overrides(earlier, logs, "simulate.servers.arguments=['--latency','0.5']")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with cluster_of_others() as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with program(tmp_path / "said", *slow) as running:
            wait_until(running, lambda: sum(map(len, asked(logs).values())) >= 3)
            wait_until(running, lambda: len(servers(logs)) == _OF_TWO)
            running.process.kill()
            wait_for_none(logs)


def test_servers_that_die_too_often_end_the_run_which_keeps_what_was_answered(
    undisturbed: Path, earlier: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    limited = ("simulate.servers.max_restarts=0", "simulate.servers.count=1")
    slow = "simulate.servers.arguments=['--latency','0.2']"
    with program(tmp_path / "said", *overrides(earlier, logs, slow, *limited)) as running:
        wait_until(running, lambda: sum(map(len, asked(logs).values())) >= 5)
        kill(logs)
        assert running.end() == 1, running.said()
    last = running.said()[running.said().index("neuron-atlas: ") :]
    assert "server 0 ended with status 137; its log " in last
    assert "simulate.servers.max_restarts" in last
    before = sum(map(len, asked(logs).values()))
    again = run(*overrides(earlier, logs))
    assert again.returncode == 0, again.stderr
    assert simulations(earlier).equals(simulations(undisturbed / "out"))
    assert sum(map(len, asked(logs).values())) > before


def test_a_command_that_fails_is_told_with_the_end_of_its_log(earlier: Path) -> None:
    failing = f"simulate.servers.command=['{sys.executable}','-c','import no_such','{{port}}']"
    ended = run(*overrides(earlier, earlier.parent / "logs", failing))
    assert ended.returncode == 1
    told = ended.stderr[ended.stderr.index("neuron-atlas: ") :]
    log = earlier / "servers" / "server-"
    assert "ended with status 1 before it answered" in told
    assert str(log) in told
    assert "ModuleNotFoundError: No module named 'no_such'" in told


def test_servers_that_somebody_else_runs_are_asked_and_left_running(
    undisturbed: Path, earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "somebody-elses")
    port = free_port("127.0.0.1")
    words = [sys.executable, "-m", "tests.loopback.served", "--port", str(port)]
    words += ["--log", str(tmp_path / "asked-0.jsonl"), "--models", MODEL]
    with subprocess.Popen(words, cwd=ROOT) as server:
        try:
            urls = f"simulate.base_urls=['http://127.0.0.1:{port}']"
            finished = run(*overrides(earlier, tmp_path / "logs", urls))
            assert finished.returncode == 0, finished.stderr
            assert server.poll() is None
        finally:
            server.kill()
    assert asked(tmp_path)
    assert simulations(earlier).equals(simulations(undisturbed / "out"))
    gone = run(*overrides(earlier, tmp_path / "logs", urls, "simulate.seed=1"))
    assert gone.returncode == 1
    assert "connection: ConnectError" in gone.stderr


@contextmanager
def cluster_of_others() -> Iterator[str]:
    """A Ray node of this machine that no run here has started."""
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    folder = tempfile.mkdtemp(prefix="ray-")  # Short: sockets lie in it.
    words = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    words += ["--node-ip-address=127.0.0.1", f"--port={address.rpartition(':')[2]}"]
    words += ["--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(words, env=environment, start_new_session=True) as node:
        try:
            deadline = time.monotonic() + _PATIENCE_S
            while socket.socket().connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))):
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield address
        finally:
            os.killpg(node.pid, signal.SIGTERM)
            node.wait()
            shutil.rmtree(folder, ignore_errors=True)


def wait_for_none(logs: Path) -> None:
    deadline = time.monotonic() + _TO_END_S
    while left := servers(logs):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def wait_until(running: Program, reached: Any) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not reached():
        assert running.process.poll() is None, f"it ended too early:\n{running.said()}"
        assert time.monotonic() < deadline, f"it never got there:\n{running.said()}"
        time.sleep(0.05)
