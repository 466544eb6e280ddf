"""Starting Ray on a machine that is too busy for Ray's own waits."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from neuron_atlas.workflows.cluster import connect
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.cluster.start import ATTEMPTS, start_with_retries
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.run.errors import RunError

NODE = Exception("The current node timed out during startup. This could happen because ...")
"""As ray.init raises it when 30 s did not suffice for its node: a bare Exception."""
GCS = RuntimeError("Timed out waiting for file /tmp/ray/session/gcs_server_port_1234")


@pytest.fixture
def busy(monkeypatch):
    """Have ray.init fail with these errors, one a call, and then succeed; its calls."""
    monkeypatch.setattr(connect.ray, "is_initialized", lambda: False)
    calls = []

    def have_it_fail(*errors: Exception) -> list[str]:
        left = list(errors)

        def init(**_: object) -> None:
            calls.append("init")
            if left:
                raise left.pop(0)

        monkeypatch.setattr(connect.ray, "init", init)
        monkeypatch.setattr(connect.ray, "shutdown", lambda: calls.append("shutdown"))
        return calls

    return have_it_fail


def test_a_start_that_timed_out_is_tried_again_with_a_line_that_says_so(busy, capsys):
    calls = busy(NODE, GCS)
    with cluster(ClusterSettings(cpus=2)):
        assert calls == ["init", "shutdown", "init", "shutdown", "init"]
    assert capsys.readouterr().err.splitlines() == [
        "cluster    Ray did not start within 0 s, the machine is busy; trying again (2 of 4)",
        "cluster    Ray did not start within 0 s, the machine is busy; trying again (3 of 4)",
    ]


def test_a_machine_that_stays_too_busy_is_a_failed_run(busy):
    calls = busy(*[NODE] * ATTEMPTS)
    with pytest.raises(RunError, match="Ray did not start in 4 attempts, the machine is too busy"):
        cluster(ClusterSettings(cpus=2)).__enter__()
    assert calls.count("init") == ATTEMPTS


def test_the_program_then_ends_in_one_line_with_status_1(busy, ended, tmp_path, shared_mlflow):
    busy(*[NODE] * ATTEMPTS)
    status, said = ended(f"out={tmp_path}", "data.count=100", "cluster.cpus=2")
    assert status == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("neuron-atlas: Ray did not start in 4 attempts")


def test_another_error_is_raised_at_once(busy):
    calls = busy(ValueError("object_store_memory is too large"))
    with pytest.raises(ValueError, match="too large"):
        cluster(ClusterSettings(cpus=2)).__enter__()
    assert calls.count("init") == 1


def test_a_busy_cluster_that_is_there_already_is_asked_again_too(busy, capsys):
    calls = busy(TimeoutError("Deadline Exceeded"))
    with cluster(ClusterSettings(address="auto")):
        assert calls.count("init") == 2
    assert "trying again (2 of 4)" in capsys.readouterr().err


def test_the_processes_of_a_failed_attempt_are_gone_before_the_next():
    started = []

    def start() -> bool:
        still_there = [one.pid for one in started if one.poll() is None]
        assert still_there == []
        if len(started) == 2:
            return True
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        assert psutil.pid_exists(started[-1].pid)
        raise NODE

    assert start_with_retries(start)
