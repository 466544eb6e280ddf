"""MLflow as `neuron-atlas-ui` opens it: at the run's page, and writing only to the folder."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from neuron_atlas.workflows.tracking.links import run_link, table_link, ui_command
from neuron_atlas.workflows.tracking.recorder import Recorder, RunRecord
from neuron_atlas.workflows.tracking.ui_app import last_run
from neuron_atlas.workflows.tracking.ui_command import main
from tests.waiting import PATIENCE_S
from tests.workflows.runs import ROOT


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, make_database: Callable[[Path], Path]) -> Path:
    """A folder with a run, and a sweep with a job, which started last."""
    folder = tmp_path_factory.mktemp("ui") / "out"
    folder.mkdir()
    make_database(folder / "mlflow.db")
    recorder = Recorder(folder)
    RunRecord(recorder, "neuron-atlas", "first", "", {}, {}).end("FINISHED")
    sweep = RunRecord(recorder, "neuron-atlas", "sweep", "", {}, {})
    RunRecord(recorder, "neuron-atlas", "job", "", {}, {}, sweep).end("FINISHED")
    sweep.end("FINISHED")
    recorder.close()
    return folder


def ids(out: Path) -> tuple[str, str]:
    found = last_run(f"sqlite:///{out / 'mlflow.db'}")
    assert found is not None
    return found


@dataclass
class Ui:
    server: str
    said: list[str]
    cwd: Path
    home: Path


@pytest.fixture(scope="module")
def ui(out: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    cwd, home = tmp_path_factory.mktemp("cwd"), tmp_path_factory.mktemp("home")
    environment = os.environ | {"HOME": str(home), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-m", "neuron_atlas.workflows.tracking.ui_command", str(out)]
    with (cwd.parent / "ui.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", "0"],
            cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        said = [process.stdout.readline().strip() for _ in range(2)]
        assert said[0], (cwd.parent / "ui.log").read_text()
        found = re.search(r"http://127\.0\.0\.1:\d+", said[0])
        assert found is not None
        yield Ui(found[0], said, cwd, home)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


def ask(address: str, content: object = None, **headers: str) -> tuple[int, str]:
    data = None if content is None else json.dumps(content).encode()
    headers["Content-Type"] = "application/json"
    request = urllib.request.Request(address, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_it_says_where_the_last_run_and_the_table_of_runs_are(ui, out):
    experiment, run = ids(out)
    assert ui.said == [
        f"last run   {run_link(ui.server, experiment, run)}",
        f"all runs   {table_link(ui.server, experiment)}",
    ]
    for line in ui.said:
        assert line.endswith("workflowType=machine_learning")


def test_the_last_run_is_no_job_of_a_sweep(out):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    assert client.get_run(ids(out)[1]).info.run_name == "sweep"


def test_the_address_alone_opens_the_runs_page_of_model_training(ui, out):
    experiment, run = ids(out)
    status, page = ask(f"{ui.server}/")
    assert status == 200
    assert f'location.hash = "#/experiments/{experiment}/runs/{run}?workflowType=' in page
    assert '"mlflow.workflowType_v1": "\\"machine_learning\\""' in page
    assert "score/correlation_of_control" in page  # A column of the table of runs.
    assert 'id="root"' in page


def test_the_assistant_and_telemetry_are_off_and_the_runs_are_there(ui, out):
    api = f"{ui.server}/ajax-api"
    assert ask(f"{api}/3.0/mlflow/assistant/config")[0] == 404
    assert ask(f"{api}/3.0/mlflow/assistant/message", {"message": "hello"})[0] == 404
    assert json.loads(ask(f"{api}/3.0/mlflow/ui-telemetry")[1])["disable_ui_telemetry"] is True
    _, run = ids(out)
    status, text = ask(f"{api}/2.0/mlflow/runs/get?run_id={run}")
    assert status == 200
    assert json.loads(text)["run"]["info"]["run_name"] == "sweep"


def test_a_page_elsewhere_cannot_read_it_or_write_to_it(ui):
    assert ask(f"{ui.server}/", Host="evil.example")[0] == 403
    tag = {"experiment_id": "1", "key": "a", "value": "b"}
    address = f"{ui.server}/api/2.0/mlflow/experiments/set-experiment-tag"
    assert ask(address, tag, Origin="https://evil.example")[0] == 403


def test_it_writes_nothing_outside_the_folder(ui, out):
    ask(f"{ui.server}/")
    assert list(ui.cwd.iterdir()) == []
    assert [path for path in ui.home.rglob("*") if path.is_file()] == []
    assert {path.name for path in out.iterdir()} <= {"mlflow.db", "mlartifacts", ".mlflow.lock"}


def test_a_folder_without_runs_and_a_taken_port_get_a_line(out, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path)])
    assert ended.value.code == 2
    assert (
        "no runs are recorded here (no mlflow.db); name the out= folder" in capsys.readouterr().err
    )
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main([str(out), "--port", str(taken.getsockname()[1])])
    assert ended.value.code == 1
    assert "try another --port" in capsys.readouterr().err


def test_the_command_can_be_pasted():
    assert ui_command(Path("/a b/out")).endswith("neuron-atlas-ui '/a b/out'")


def test_a_run_is_found_by_a_command_with_its_link_or_on_the_server(out, monkeypatch):
    recorder = Recorder(out)
    run = RunRecord(recorder, "neuron-atlas", "found", "", {}, {})
    experiment, _ = ids(out)
    link = run_link("http://127.0.0.1:5000", experiment, run.run_id)
    assert recorder.where(run) == f"{ui_command(out)}  opens {link}"
    monkeypatch.setattr(recorder, "_server", "https://me:secret@mlflow.example/")

    class Sent:
        def copy_of(self, run_id: str) -> tuple[str, str] | None:
            return ("7", "abc") if run_id == run.run_id else None

    monkeypatch.setattr(recorder, "mirror", Sent())
    there = "https://mlflow.example/#/experiments/7/runs/abc?workflowType=machine_learning"
    assert recorder.where(run) == there
    monkeypatch.setattr(recorder, "mirror", None)
    assert recorder.where(run) == f"{ui_command(out)}  opens {link}"  # Not sent yet.
    run.end("FINISHED")
    recorder.close()
