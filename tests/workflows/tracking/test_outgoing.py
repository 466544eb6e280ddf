"""What is logged while MLflow is not there: kept, and logged once it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from neuron_atlas.workflows.tracking import later, outgoing
from neuron_atlas.workflows.tracking.delivery import Delivery
from neuron_atlas.workflows.tracking.outgoing import Outgoing
from neuron_atlas.workflows.tracking.spool import Spool
from neuron_atlas.workflows.tracking.tracker import Record
from tests.workflows.runs import ROOT, runs_in

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def later_there(shared_mlflow: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tracking server that is down, until `comes_back`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return shared_mlflow


def comes_back(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{there / 'mlflow.db'}")


def tell(out: Path, name: str) -> None:
    """A run that tells all kinds of things, and ends."""
    sent = Outgoing(out)
    record = Record(sent, "neuron-atlas", name, {"subject": "small"}, {"capture.top_n": "12"})
    record.metrics([("score/correlation", 0.25, 0), ("types_by_layer/paper/text", 0.5, 3)])
    page = out / "page.html"
    page.write_text("a page", encoding="utf-8")
    record.files(out, [page.name], "report")
    record.table({"layer": [0, 1], "text": ["a cat", "a dog"]}, "table.json")
    record.end("FINISHED")
    sent.close()


def found(there: Path, name: str) -> tuple[MlflowClient, list[Run]]:
    client, runs = runs_in(there / "mlflow.db")
    return client, [run for run in runs if run.info.run_name == name]


def log_later(out: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["neuron-atlas-log", str(out)])
    try:
        later.main()
    except SystemExit as ended:
        return ended.code
    return 0


def test_what_was_told_while_the_server_was_down_is_logged_once_it_is_back(
    later_there, tmp_path, monkeypatch, capsys
):
    tell(tmp_path, "in vain")
    said = capsys.readouterr().err
    assert "mlflow     not logged: " in said
    assert f"neuron-atlas-log {tmp_path}" in said
    assert log_later(tmp_path, monkeypatch) == 1
    assert "1 records wait" in capsys.readouterr().err

    comes_back(later_there, monkeypatch)
    assert log_later(tmp_path, monkeypatch) == 0
    assert "mlflow     1 runs logged to sqlite" in capsys.readouterr().err
    client, (run,) = found(later_there, "in vain")
    assert run.info.status == "FINISHED"
    assert run.data.params["capture.top_n"] == "12"
    assert run.data.metrics["score/correlation"] == 0.25
    (point,) = client.get_metric_history(run.info.run_id, "types_by_layer/paper/text")
    assert point.step == 3
    assert run.info.start_time <= point.timestamp <= run.info.end_time
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert kept == {"report", "table.json"}
    assert not (tmp_path / "tracking").exists()
    assert log_later(tmp_path, monkeypatch) == 0
    assert len(found(later_there, "in vain")[1]) == 1


def test_without_the_file_it_would_be_lost(later_there, tmp_path, monkeypatch):
    """The control of the test above."""
    monkeypatch.setattr(Spool, "_write", lambda self, line: None)
    tell(tmp_path, "lost")
    comes_back(later_there, monkeypatch)
    assert log_later(tmp_path, monkeypatch) == 0
    assert found(later_there, "lost")[1] == []


def test_the_next_run_in_the_folder_logs_what_an_earlier_one_could_not(
    later_there, tmp_path, monkeypatch, capsys
):
    tell(tmp_path, "earlier")
    comes_back(later_there, monkeypatch)
    tell(tmp_path, "next")
    assert "mlflow     1 earlier runs are logged now" in capsys.readouterr().err
    assert [run.info.status for run in found(later_there, "earlier")[1]] == ["FINISHED"]
    assert [run.info.status for run in found(later_there, "next")[1]] == ["FINISHED"]


def test_a_server_that_goes_and_comes_back_in_mid_run_gets_everything_in_order(
    shared_mlflow, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(outgoing, "_FIRST_PAUSE_S", 0.02)
    deliver, tried = Delivery.deliver, []

    def down_for_a_while(self, entry, spool):
        tried.append(entry.kind)
        if 2 <= len(tried) <= 5:
            raise ConnectionError("gone")
        deliver(self, entry, spool)

    monkeypatch.setattr(Delivery, "deliver", down_for_a_while)
    monkeypatch.setattr(outgoing, "_LATELY_S", 0.0)
    tell(tmp_path, "between")
    assert tried == ["begin", *["metrics"] * 5, "files", "table", "end"]
    said = capsys.readouterr().err
    assert said.count("mlflow     cannot be reached: gone; the run goes on") <= 1
    assert "not logged" not in said
    client, (run,) = found(shared_mlflow, "between")
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "score/correlation")) == 1


def test_a_program_that_is_killed_leaves_a_run_that_is_logged_as_killed(
    later_there, tmp_path, monkeypatch
):
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from neuron_atlas.workflows.tracking.outgoing import Outgoing\n"
        "from neuron_atlas.workflows.tracking.tracker import Record\n"
        "record = Record(Outgoing(Path(sys.argv[1])), 'neuron-atlas', 'shot', {}, {})\n"
        "record.metrics([('explain/usd', 1.5, 10)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": NOWHERE}
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment)
    assert ended.returncode == -9
    comes_back(later_there, monkeypatch)
    assert log_later(tmp_path, monkeypatch) == 0
    _, (run,) = found(later_there, "shot")
    assert run.info.status == "KILLED"
    assert run.data.metrics["explain/usd"] == 1.5
    assert run.data.tags["error"] == "its program was killed"


def test_what_a_living_program_tells_is_left_to_it(later_there, tmp_path, monkeypatch):
    living = Outgoing(tmp_path)
    Record(living, "neuron-atlas", "living", {}, {})
    comes_back(later_there, monkeypatch)
    assert log_later(tmp_path, monkeypatch) == 0
    assert found(later_there, "living")[1] == []
    living.close()


def test_a_line_that_a_kill_cut_off_hides_none_before_it(tmp_path):
    spool = Spool.create(tmp_path)
    spool.add("a", "begin", {"name": "x"})
    spool.add("a", "metrics", {"values": []})
    spool.arrived()
    spool.close()
    with spool.path.open("a", encoding="utf-8") as file:
        file.write('{"run": "a", "ki')
    (left,) = Spool.left_in(tmp_path)
    assert [entry.kind for entry in left.waiting()] == ["metrics"]
    assert list(left.begun) == ["a"]


def test_what_mlflow_refuses_is_said_and_holds_up_nothing(shared_mlflow, tmp_path, capsys):
    sent = Outgoing(tmp_path)
    record = Record(sent, "neuron-atlas", "refused", {}, {})
    record.metrics([("a name that is too long" * 20, 1.0, 0)])
    record.files(tmp_path, ["gone.html"], "report")
    record.metrics([("neurons/all", 5.0, 0)])
    record.end("FINISHED")
    sent.close()
    said = capsys.readouterr().err
    assert "mlflow     will not log metrics: " in said
    assert "mlflow     will not log files: " in said
    _, (run,) = found(shared_mlflow, "refused")
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"neurons/all": 5.0})


def test_a_run_that_the_server_has_forgotten_begins_again(shared_mlflow, tmp_path):
    sent = Outgoing(tmp_path)
    record = Record(sent, "neuron-atlas", "forgotten", {}, {"capture.top_n": "3"})
    record.metrics([("neurons/all", 5.0, 0)])
    while len(sent._spool):
        pass
    (run_id,) = sent._spool.runs.values()
    sent._spool.runs.update(dict.fromkeys(sent._spool.runs, "0" * 32))
    record.metrics([("score/correlation", 0.5, 0)])
    record.end("FINISHED")
    sent.close()
    _, runs = found(shared_mlflow, "forgotten")
    (again,) = [run for run in runs if run.info.run_id != run_id]
    assert again.data.metrics == {"score/correlation": 0.5}
    assert again.data.params["capture.top_n"] == "3"
    assert again.info.status == "FINISHED"


def test_a_full_disk_costs_the_file_and_not_the_run(shared_mlflow, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    tell(tmp_path, "full")
    assert [run.info.status for run in found(shared_mlflow, "full")[1]] == ["FINISHED"]


def test_the_folder_must_be_there(tmp_path, monkeypatch, capsys):
    assert log_later(tmp_path / "nothing", monkeypatch) == 2
    assert "nothing: no such folder" in capsys.readouterr().err
