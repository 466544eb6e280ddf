"""The whole line as a job on several Ray nodes: `make test-slow ONLY=cluster`."""

from __future__ import annotations

import ipaddress
import os
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.infra.clusters import Running, environment, named, run_cluster, running
from tests.infra.installed import bare_environment
from tests.waiting import PATIENCE_S
from tests.workflows.programs import program
from tests.workflows.runs import ROOT, SMALL, SPECS, Atlas
from tests.workflows.test_resume import same

pytestmark = pytest.mark.cluster

KEY = "sk-this-key-must-stay-where-it-is-0123456789"
SETTINGS = (
    "data.count=120",
    *SMALL,
    "capture.shards=12",
    "cluster.actors=3",
    "explain.neurons_per_task=4",
)
SPREAD = ("describe", "capture", "merge", "explain", "simulate", "score")


@dataclass
class Seen:
    """What was seen of a run on a local cluster of three nodes."""

    atlas: Atlas
    status: int = -1
    said: str = ""
    left: list[psutil.Process] = field(default_factory=list)
    listening: set[str] = field(default_factory=set)
    command_lines: str = ""
    token: str = ""
    token_mode: int = 0
    of_workers: list[dict[str, str]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    joined: subprocess.CompletedProcess[str] | None = None
    pages: dict[str, int] = field(default_factory=dict)
    answers: str = ""
    job: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Atlas:
    """The same on one node."""
    folder = tmp_path_factory.mktemp("alone")
    settings = [one for one in SETTINGS if not one.startswith("cluster.")]
    with program(folder / "log", *settings, "cluster.actors=1", f"out={folder / 'out'}") as once:
        assert once.end() == 0, once.said()
    return Atlas(folder / "out")


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Seen:
    folder = tmp_path_factory.mktemp("three")
    out = folder / "out"
    told = Seen(Atlas(out))
    with running(
        run_cluster(3, *SETTINGS, f"out={out}"), folder / "log", OPENAI_API_KEY=KEY
    ) as run:
        run.run_until(lambda: list(out.glob("artifacts/capture/*/shards/shard-*")))
        look(run, told)
        told.status = run.end()
        told.said = run.said()
        told.left = run.wait_for_nothing_left()
    return told


def look(run: Running, told: Seen) -> None:
    processes = run.processes()
    ours = {process.pid for process in processes}
    told.listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.net_connections("inet")
        if connection.pid in ours and connection.status == psutil.CONN_LISTEN
    }
    (driver, *_) = named(processes, "neuron_atlas.workflows.atlas")
    inherited = environment(driver)
    path = Path(inherited["RAY_AUTH_TOKEN_PATH"])
    told.token = path.read_text(encoding="utf-8")
    told.token_mode = stat.S_IMODE(path.stat().st_mode)
    told.command_lines = "\n".join(" ".join(words(process)) for process in processes)
    told.of_workers = [environment(one) for one in named(processes, "ray::PoolActor")]
    server = told_server(run)
    for url in (f"{server}/api/jobs/", f"{server}/nodes?view=summary", f"{server}/api/v0/tasks"):
        told.refused[url] = requests.get(url, timeout=PATIENCE_S).status_code
        wrong = {"Authorization": "Bearer " + "0" * 64}
        told.refused[f"{url} wrong"] = requests.get(
            url, headers=wrong, timeout=PATIENCE_S
        ).status_code
    submission = requests.post(
        f"{server}/api/jobs/", json={"entrypoint": "true"}, timeout=PATIENCE_S
    )
    told.refused["submit"] = submission.status_code
    told.joined = join_without_token(inherited["RAY_ADDRESS"])
    right = {"Authorization": f"Bearer {told.token}"}
    pages = (
        "/api/jobs/",
        "/nodes?view=summary",
        "/api/v0/tasks?detail=1",
        "/api/v0/actors?detail=1",
    )
    pages += ("/api/v0/workers?detail=1", "/api/v0/runtime_envs", "/logical/actors")
    for page in pages:
        answer = requests.get(server + page, headers=right, timeout=PATIENCE_S)
        told.pages[page] = answer.status_code
        told.answers += answer.text
    (told.job,) = requests.get(f"{server}/api/jobs/", headers=right, timeout=PATIENCE_S).json()


def told_server(run: Running) -> str:
    return next(word for word in run.said().split() if word.startswith("http://"))


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def join_without_token(address: str) -> subprocess.CompletedProcess[str]:
    """Somebody on this machine who has no token asks the cluster itself for its nodes."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    code = (
        "from ray._raylet import GcsClient; "
        f"print('LET IN', GcsClient(address={address!r}).get_all_node_info(timeout=60))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"RAY_AUTH_MODE": "disabled", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_run_is_a_job_whose_log_and_status_are_those_of_the_call(seen):
    assert seen.status == 0, seen.said
    assert "3 Ray nodes on this machine" in seen.said
    for line in ("samples    120/120", "capture    120/120", "scores     mean", "nodes      "):
        assert line in seen.said
    assert seen.job["status"] == "RUNNING"


def test_every_stage_was_worked_on_by_more_than_one_node(seen):
    nodes = seen.atlas.manifest["nodes"]
    assert {name: nodes[name] for name in SPREAD if not 1 < nodes[name] <= 3} == {}


@pytest.mark.parametrize("name", SPECS)
def test_the_rows_are_those_of_a_run_on_one_node(seen, alone, name):
    assert max(alone.manifest["nodes"].values()) == 1
    assert same(seen.atlas.table(name), alone.table(name))


def test_no_process_of_the_cluster_is_left(seen):
    assert seen.left == []


def test_everything_listens_on_loopback(seen):
    assert seen.listening
    assert all(ipaddress.ip_address(ip).is_loopback for ip in seen.listening), seen.listening


def test_requests_without_the_token_are_refused(seen):
    assert set(seen.refused.values()) == {401, 403}, seen.refused
    assert seen.refused["submit"] == 401


def test_nobody_joins_the_cluster_without_the_token(seen):
    assert seen.joined.returncode != 0
    assert "LET IN" not in seen.joined.stdout
    assert "authenticat" in seen.joined.stderr.lower()


def test_only_the_user_can_read_the_token_and_no_command_line_shows_it(seen):
    assert len(seen.token) == 64
    assert seen.token_mode == 0o600
    assert "neuron_atlas.workflows.atlas" in seen.command_lines
    assert seen.token not in seen.command_lines


def test_keys_reach_the_workers_by_their_environment_alone(seen):
    assert len(seen.of_workers) >= 2
    assert {one["OPENAI_API_KEY"] for one in seen.of_workers} == {KEY}
    assert seen.job["entrypoint"].endswith(f"out={seen.atlas.out}")
    assert list(seen.pages.values()).count(200) >= 5, seen.pages
    assert "PoolActor" in seen.answers
    assert KEY not in seen.answers
    assert seen.token not in seen.answers
    assert KEY not in seen.command_lines
    assert KEY not in seen.said


def test_sigint_stops_the_run_and_the_same_call_goes_on(tmp_path, alone):
    out = tmp_path / "out"
    call = run_cluster(2, *SETTINGS, f"out={out}")
    with running(call, tmp_path / "1.log") as first:
        first.run_until(lambda: len(list(out.glob("artifacts/capture/*/shards/shard-*"))) >= 2)
        first.process.send_signal(signal.SIGINT)
        assert first.end() == 130
        said = first.said()
        assert "the same command goes on from there" in said
        assert first.wait_for_nothing_left() == []
    with running(call, tmp_path / "2.log") as second:
        assert second.end() == 0, second.said()
        assert "samples were done before" in second.said()
    for name in SPECS:
        assert same(Atlas(out).table(name), alone.table(name))


def test_a_wrong_call_ends_with_2(tmp_path):
    call = run_cluster(1, f"out={tmp_path / 'out'}", "capture.tpo_n=3")
    with running(call, tmp_path / "log") as run:
        assert run.end() == 2
        assert "capture.tpo_n" in run.said()
        assert run.wait_for_nothing_left() == []


@pytest.mark.parametrize("seen", ["gcs_server", "raylet"])
def test_sigterm_while_the_nodes_start_ends_with_130_and_leaves_nothing(tmp_path, seen):
    with running(run_cluster(2, *SETTINGS, f"out={tmp_path}/out"), tmp_path / "log") as run:
        run.run_until(lambda: named(run.processes(), seen))
        run.process.terminate()
        assert run.end() == 130, run.said()
        assert "run-cluster: interrupted; " in run.said()
        assert run.wait_for_nothing_left() == []


def test_nothing_of_the_cluster_outlives_a_kill_and_the_same_call_goes_on(tmp_path, alone):
    out = tmp_path / "out"
    call = run_cluster(2, *SETTINGS, f"out={out}")
    with running(call, tmp_path / "1.log") as run:
        run.run_until(lambda: list(out.glob("artifacts/describe/*/manifest.json")))
        assert len(named(run.processes(), "raylet")) >= 2
        run.process.kill()
        run.process.wait()
        assert run.wait_for_nothing_left() == []
    with running(call, tmp_path / "2.log") as again:
        assert again.end() == 0, again.said()
        assert "describe   already done" in again.said()
    for name in SPECS:
        assert same(Atlas(out).table(name), alone.table(name))


def test_ray_address_names_the_cluster_that_the_run_and_the_package_go_to(tmp_path, alone):
    out = tmp_path / "out"
    # Nodes that have the dependencies and no neuron_atlas, and whose environment is active.
    bare = bare_environment(tmp_path / "venv") / "bin"
    path = os.pathsep.join([str(bare), os.environ["PATH"]])
    code = (
        f"import runpy, sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {str(ROOT)!r}]; "
        "sys.argv = ['held_cluster', '2']; "
        "runpy.run_module('tests.infra.held_cluster', run_name='__main__')"
    )
    holder = [str(bare / "python"), "-c", code]
    with running(holder, tmp_path / "cluster.log", PATH=path, PYTHONPATH="") as held:
        held.run_until(lambda: "ray-token" in held.said())
        server, token = next(
            line.split() for line in held.said().splitlines() if "ray-token" in line
        )
        to_it = {"RAY_ADDRESS": server, "RAY_AUTH_MODE": "token"}
        call = run_cluster(9, *SETTINGS, f"out={out}")
        with running(call, tmp_path / "1.log", **to_it) as without:
            assert without.end() == 2
            assert "For a cluster with a token, set" in without.said()
        with running(call, tmp_path / "2.log", **to_it, RAY_AUTH_TOKEN_PATH=token) as run:
            assert run.end() == 0, run.said()
        assert "nodes " in run.said()
        assert len(named(held.processes(), "raylet")) >= 2, "it is left running"
    for name in SPECS:
        assert same(Atlas(out).table(name), alone.table(name))
