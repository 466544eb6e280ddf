"""What run-cluster refuses, how it follows a job's log, and with which status it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ray.job_submission import JobStatus

from neuron_atlas.infra import follow_job
from neuron_atlas.infra.follow_job import follow, needs_no_token, submit
from neuron_atlas.infra.run_cluster import (
    check_output_path,
    dashboard_line,
    main,
    refuse_secrets,
    run_cluster,
)
from neuron_atlas.workflows.cluster import waiting
from neuron_atlas.workflows.models.server_process import free_port
from neuron_atlas.workflows.run.errors import ConfigError, RunError
from tests.workflows.runs import ROOT


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(follow_job, "_RETRY_WAIT_S", 0.0)


@pytest.fixture(autouse=True)
def signals_as_before():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class Details:
    status: JobStatus
    driver_exit_code: int | None = None
    message: str | None = None


@dataclass
class Client:
    """In the place of Ray's: a job's log, in pieces; an exception breaks the connection off."""

    pieces: list[list[str | Exception]]
    ends: Details = field(default_factory=lambda: Details(JobStatus.SUCCEEDED, 0))
    stopped: list[str] = field(default_factory=list)
    refusals: int = 0
    """So often a job cannot be told to stop."""
    asked: int = 0

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for piece in self.pieces.pop(0) if len(self.pieces) > 1 else self.pieces[0]:
            await asyncio.sleep(0)
            if isinstance(piece, Exception):
                raise piece
            if piece == "until stopped":
                while not self.stopped:
                    await asyncio.sleep(0.01)
                piece = "kept all\n"
            yield piece

    def get_job_info(self, job: str) -> Details:
        return self.ends

    def stop_job(self, job: str) -> bool:
        self.asked += 1
        if self.asked <= self.refusals:
            raise ConnectionError("Connection refused\nmore")
        self.stopped.append(job)
        return True


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({"RAY_AUTH_TOKEN_PATH": "/tmp/x/ray-token", "RAY_AUTH_TOKEN": ""}, "/tmp/x/ray-token)"),
        ({"RAY_AUTH_TOKEN_PATH": "/tmp/x/ray-token", "RAY_AUTH_TOKEN": "abc"}, "RAY_AUTH_TOKEN)"),
        ({}, "/.ray/auth_token)"),
    ],
)
def test_the_dashboards_line_says_where_its_token_is_and_never_shows_it(environment, place):
    line = dashboard_line("http://127.0.0.1:8265", {"RAY_AUTH_MODE": "token"} | environment)
    assert line.startswith("dashboard  http://127.0.0.1:8265 (paste the token, which is in ")
    assert line.endswith(place)
    assert "abc" not in line


def test_a_cluster_without_a_token_needs_no_line():
    assert dashboard_line("http://127.0.0.1:8265", {}) == ""


def followed(client: Client) -> int:
    return asyncio.run(follow(client, "job-1"))


def test_the_log_is_printed_as_it_comes(capsys):
    assert followed(Client([["samples 1/2\n", "samples 2/2\n"]])) == 0
    assert capsys.readouterr().err == "samples 1/2\nsamples 2/2\n"


def test_a_job_that_the_cluster_does_not_start_is_said(capsys, monkeypatch):
    monkeypatch.setattr(waiting, "FIRST_LINE_S", 0.0)

    class Occupied(Client):
        async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
            await asyncio.sleep(0.05)
            yield "samples 1/2\n"

    assert followed(Occupied([])) == 0
    assert capsys.readouterr().err == (
        "job        waiting for the cluster to start job-1, 0 s so far\nsamples 1/2\n"
    )


def test_a_log_that_breaks_off_is_taken_up_where_it_broke(capsys):
    first = ["one\ntwo\n", RuntimeError("closed"), "lost"]
    assert followed(Client([first, ["one\n", "two\nthree\n", "four\n"]])) == 0
    said = capsys.readouterr().err
    assert said.replace("run-cluster: lost the job's log (closed); reconnecting\n", "") == (
        "one\ntwo\nthree\nfour\n"
    )


def test_a_cluster_that_answers_no_more_is_a_failed_run_that_may_go_on():
    with pytest.raises(RunError, match=r"job-1 may still be running .* the same command again"):
        followed(Client([[ConnectionError("gone")]]))


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (Details(JobStatus.SUCCEEDED, 0), 0),
        (Details(JobStatus.FAILED, 1), 1),
        (Details(JobStatus.FAILED, 2), 2),
        (Details(JobStatus.FAILED, 130), 130),
        (Details(JobStatus.FAILED, -9), 1),
        (Details(JobStatus.FAILED, None, "no such working_dir"), 1),
        (Details(JobStatus.STOPPED), 1),
    ],
)
def test_the_status_is_that_of_the_run(ends, status):
    assert followed(Client([["done\n"]], ends)) == status


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (Details(JobStatus.FAILED, -9), "its driver was killed by SIGKILL. Finished work is kept;"),
        (
            Details(JobStatus.FAILED, None, "no such env\nmore"),
            "failed: no such env. Finished work",
        ),
        (
            Details(JobStatus.STOPPED),
            "another client stopped job-1; run the same command again to continue",
        ),
    ],
)
def test_an_end_that_the_log_does_not_tell_is_told_with_how_to_go_on(ends, said, capsys):
    followed(Client([["done\n"]], ends))
    assert said in capsys.readouterr().err


def interrupted(client: Client, number: int, *again_once: Callable[[], bool]) -> int:
    """The status after this signal, and after one more each time that something has come true."""

    async def work() -> int:
        running = asyncio.create_task(follow(client, "job-1"))
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), number)
        for reached in again_once:
            while not reached():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), number)
        return await running

    return asyncio.run(work())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_job_and_its_log_is_followed_to_the_end(number, capsys):
    client = Client([["working\n", "until stopped"]], Details(JobStatus.STOPPED))
    assert interrupted(client, number) == 130
    assert client.stopped == ["job-1"]
    assert capsys.readouterr().err.splitlines() == [
        "working",
        "stopping   job-1, which finishes work in progress; press Ctrl-C again not to wait",
        "kept all",
    ]


def test_a_job_that_cannot_be_told_to_stop_is_told_again_until_it_is(capsys):
    client = Client([["working\n", "until stopped"]], Details(JobStatus.STOPPED), refusals=2)
    assert interrupted(client, signal.SIGTERM) == 130
    assert client.stopped == ["job-1"]
    said = capsys.readouterr().err
    assert said.count("could not stop job-1 (Connection refused); retrying\n") == 1


def test_a_second_signal_waits_no_longer(capsys):
    told: list[str] = []
    client = Client([["until stopped"]])
    client.stop_job = lambda job: not told.append(job)  # It does not stop.
    assert interrupted(client, signal.SIGINT, lambda: bool(told)) == 130
    assert "job-1 is stopping; run the same command again to continue" in capsys.readouterr().err


def test_a_second_signal_tells_of_a_job_that_was_never_told_to_stop(capsys):
    client = Client([["until stopped"]], refusals=10**6)
    assert interrupted(client, signal.SIGINT, lambda: client.asked > 2) == 130
    said = capsys.readouterr().err
    assert "could not stop job-1; it may still be running" in said
    assert "ray job stop job-1" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_there_is_a_job_to_follow_ends_with_130_too(number):
    code = (
        "import signal, sys; from neuron_atlas.infra import run_cluster as program; "
        "sys.argv = ['run-cluster']; "
        f"program.run_cluster = lambda *_: signal.raise_signal({int(number)}); program.main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 130, ended.stderr
    assert ended.stderr.startswith("run-cluster: interrupted; ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_key_of_the_environment_in_a_setting_is_refused_for_all_can_read_it():
    environment = {"OPENAI_API_KEY": "sk-very-secret", "HOME": "/home/sk-very-secret"}
    refuse_secrets(["explain.client.api_key_env=OPENAI_API_KEY"], environment)
    with pytest.raises(ConfigError, match="contains the value of OPENAI_API_KEY") as caught:
        refuse_secrets(["out=/o", "explain.client.base_url=http://x/sk-very-secret"], environment)
    assert "sk-very-secret" not in str(caught.value)


@pytest.mark.parametrize("settings", [["out=/shared/run"], ["out=x", "out=s3://bucket/run"]])
def test_an_output_that_all_nodes_can_reach_is_taken(settings):
    check_output_path(settings, "http://head:8265")


@pytest.mark.parametrize("settings", [[], ["out=out/demo"], ["out=/shared", "out=mine"]])
def test_a_folder_of_each_nodes_own_is_refused_before_anything_is_lost_in_it(settings):
    with pytest.raises(
        ConfigError, match=r"^out=.* an absolute path that all nodes of the cluster"
    ):
        check_output_path(settings, "http://head:8265")


@pytest.mark.parametrize("address", ["http://127.0.0.1:{}", "127.0.0.1:{}"])
def test_an_address_where_nobody_answers_is_told_at_once(address):
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS: no answer from "):
        submit(address.format(free_port("127.0.0.1")), "true", {})


def test_ray_clients_address_is_refused_with_the_one_to_use():
    with pytest.raises(ConfigError, match="give the job server instead, such as http://head:8265"):
        submit("ray://head:10001", "true", {})


@pytest.mark.parametrize(("status", "open_to_all"), [(200, True), (401, False), (403, False)])
def test_a_job_server_without_a_token_is_found_out(status, open_to_all):
    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert needs_no_token(f"http://127.0.0.1:{server.server_port}") is open_to_all
    assert needs_no_token(f"http://127.0.0.1:{free_port('127.0.0.1')}") is False


def test_a_cluster_has_at_least_one_node():
    with pytest.raises(ConfigError, match=r"--nodes \(NODES\): must be at least 1, not 0"):
        run_cluster([], 0, "")


def test_a_wrong_call_ends_with_status_2_and_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run-cluster", "--nodes", "0", "--", "out=x"])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("run-cluster: --nodes (NODES): must be at least 1")
