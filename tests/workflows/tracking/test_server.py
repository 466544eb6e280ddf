"""A real MLflow server that dies in the middle of a sweep, and comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.workflows.programs import Program, program
from tests.workflows.runs import SMALL, SPECS, Atlas
from tests.workflows.test_resume import same
from tests.workflows.tracking.server import MlflowServer, mlflow_server

pytestmark = pytest.mark.slow

SWEPT = [
    "--multirun",
    "data.count=40",
    *(text for text in SMALL if not text.startswith("capture.layers")),
    "capture.layers=0,1",
]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path / "server") as real:
        real.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", real.address)
        yield real


def runs(server: MlflowServer) -> list[Any]:
    client = MlflowClient(server.address)
    experiment = client.get_experiment_by_name("neuron-atlas")
    if experiment is None:
        return []
    return list(
        client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    )


def killed_in_mid_run(server: MlflowServer, run: Program) -> None:
    def is_logged() -> bool:
        has_begun = "job        1/2" in run.said() and "samples    40/40" in run.said()
        return has_begun and [one.info.status for one in runs(server)][:1] == ["RUNNING"]

    run.run_until(is_logged)
    server.kill()


def test_the_sweep_goes_on_and_is_logged_once_the_server_is_back(server, tmp_path):
    out = tmp_path / "out"
    with program(tmp_path / "log", *SWEPT, f"out={out}") as sweep:
        killed_in_mid_run(server, sweep)
        assert sweep.end() == 0
        said = sweep.said()
    assert "mlflow     cannot be reached: " in said
    assert "sweep      2 of 2 jobs finished" in said
    assert f"neuron-atlas-log {out}" in said

    server.start()
    assert "RUNNING" in {run.info.status for run in runs(server)}
    command = [sys.executable, "-m", "neuron_atlas.workflows.tracking.log_command", str(out)]
    for _ in range(2):  # The second time sends nothing.
        logged = subprocess.run(command, capture_output=True, text=True, check=False)
        assert logged.returncode == 0, logged.stderr
        assert "mlflow     all 3 runs are at http://127.0.0.1:" in logged.stderr
        assert len(runs(server)) == 3
    parent, *jobs = runs(server)
    assert [run.info.status for run in (parent, *jobs)] == ["FINISHED"] * 3
    assert [run.data.tags["mlflow.parentRunId"] for run in jobs] == [parent.info.run_id] * 2
    client = MlflowClient(server.address)
    table = Path(client.download_artifacts(parent.info.run_id, "comparison.json"))
    compared = json.loads(table.read_text(encoding="utf-8"))
    rows = [dict(zip(compared["columns"], row, strict=True)) for row in compared["data"]]
    for row, job in zip(rows[1::2], jobs, strict=True):
        assert job.data.metrics["neurons/all"] == row["neurons"] == 512
        share = job.data.metrics["neurons_share/text"]
        assert share == pytest.approx(row["text_share"], abs=1e-6)
    # The pictures of the description are those of the server's copy.
    assert f"run_uuid={parent.info.run_id}" in parent.data.tags["mlflow.note.content"]

    alone = tmp_path / "alone"
    with program(tmp_path / "alone.log", *SWEPT, f"out={alone}") as undisturbed:
        assert undisturbed.end() == 0
    for name in SPECS:
        assert same(Atlas(out).table(name), Atlas(alone).table(name)), name


def test_a_run_that_dies_with_the_server_is_logged_by_the_next_call(server, tmp_path):
    out = tmp_path / "out"
    with program(tmp_path / "1.log", *SWEPT, f"out={out}") as first:
        killed_in_mid_run(server, first)
        first.kill()
    server.start()
    with program(tmp_path / "2.log", *SWEPT, f"out={out}") as second:
        assert second.end() == 0
    statuses = [run.info.status for run in runs(server)]
    assert statuses[0] == "KILLED"
    assert "RUNNING" not in statuses
    assert statuses[-3:] == ["FINISHED"] * 3
