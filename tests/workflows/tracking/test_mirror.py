"""Runs are recorded in their folder, and mirrored to a server: live, or later by command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from neuron_atlas.workflows.tracking import live_mirror, log_command, mirror
from neuron_atlas.workflows.tracking.local import LocalRuns
from neuron_atlas.workflows.tracking.mirror import Mirror
from neuron_atlas.workflows.tracking.recorder import Recorder, RunRecord
from tests.workflows.runs import runs_in

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def out(tmp_path: Path, make_database: Callable[[Path], Path]) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    make_database(folder / "mlflow.db")
    return folder


@pytest.fixture
def server(
    tmp_path: Path, make_database: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The database of a tracking server that is down until `comes_back`."""
    (tmp_path / "server").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return make_database(tmp_path / "server" / "mlflow.db")


def comes_back(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{server}")


def begun(recorder: Recorder, name: str, parent: RunRecord | None = None) -> RunRecord:
    settings = {"capture.top_n": "12"}
    return RunRecord(recorder, "neuron-atlas", name, "a note", {"layers": "1"}, settings, parent)


def record(out: Path, name: str) -> None:
    """Record a run that logs all kinds of things, and ends."""
    recorder = Recorder(out)
    run = begun(recorder, name)
    run.metrics([("score/correlation", 0.25, 0), ("neurons/all", float("nan"), 0)])
    run.metrics([("types_by_layer/paper/text", 0.5, 3), ("types_by_layer/paper/text", 0.7, 4)])
    (out / "page.html").write_text("a page", encoding="utf-8")
    run.files(out, ["page.html"], "report")
    run.table({"layer": [0, 1], "text": ["a cat", "a dog"]}, "table.json")
    run.dataset("scenes", "1234", "{}", "{}", {"samples": "2"})
    run.subject("llava/scenes", "abcd", {"dtype": "float32"})
    run.end("FINISHED")
    recorder.close()


def found(database: Path, name: str) -> tuple[MlflowClient, list[Run]]:
    client, runs = runs_in(database)
    return client, [run for run in runs if run.info.run_name == name]


def everything(database: Path) -> list[object]:
    """All that a database holds of its runs, without the ids that are its own."""
    client, runs = runs_in(database)
    names = {run.info.run_id: run.info.run_name for run in runs}
    return [
        (
            (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time),
            run.data.params,
            {
                name: names.get(value, value)
                for name, value in run.data.tags.items()
                if name != "neuron_atlas_run"
            },
            [
                (point.key, point.step, point.timestamp, repr(point.value))
                for name in run.data.metrics
                for point in client.get_metric_history(run.info.run_id, name)
            ],
            [given.dataset.to_dictionary() for given in run.inputs.dataset_inputs],
            [
                client.get_logged_model(given.model_id).params
                for given in client.get_run(run.info.run_id).inputs.model_inputs
            ],
            sorted(files(client, run.info.run_id)),
        )
        for run in sorted(runs, key=lambda run: run.info.run_name)
    ]


def files(client: MlflowClient, run_id: str) -> list[tuple[str, bytes]]:
    folder = Path(urlsplit(client.get_run(run_id).info.artifact_uri).path)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in paths]


@pytest.fixture
def log_later(out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """`neuron-atlas-log OUT`; returns its exit status."""

    def call() -> object:
        monkeypatch.setattr(sys, "argv", ["neuron-atlas-log", str(out)])
        try:
            log_command.main()
        except SystemExit as ended:
            return ended.code
        return 0

    return call


def test_without_a_server_the_folder_holds_everything(out):
    record(out, "alone")
    client, (run,) = found(out / "mlflow.db", "alone")
    assert run.info.status == "FINISHED"
    assert run.data.params["capture.top_n"] == "12"
    assert run.data.tags["mlflow.note.content"] == "a note"
    (point, _) = client.get_metric_history(run.info.run_id, "types_by_layer/paper/text")
    assert point.step == 3
    assert run.info.start_time <= point.timestamp <= run.info.end_time
    assert {name for name, _ in files(client, run.info.run_id)} == {
        "report/page.html",
        "table.json",
    }


def test_a_server_that_answers_has_the_same_as_the_folder(out, server, monkeypatch, capsys):
    comes_back(server, monkeypatch)
    record(out, "both")
    assert everything(server) == everything(out / "mlflow.db")
    assert "mlflow   " not in capsys.readouterr().err


def test_the_pictures_of_a_description_are_those_of_the_copy(out, server):
    recorder = Recorder(out)
    run = begun(recorder, "with a picture")
    run.note(f"![scores](get-artifact?path=pictures%2Fscores.png&run_uuid={run.run_id})")
    mirror = Mirror(recorder.local.client, f"sqlite:///{server}")
    mirror.copy(run.run_id)
    (copied,) = found(server, "with a picture")[1]
    note = copied.data.tags["mlflow.note.content"]
    assert note.endswith(f"run_uuid={copied.info.run_id})")
    assert copied.info.run_id != run.run_id
    assert mirror.copy_of(run.run_id) == (copied.info.experiment_id, copied.info.run_id)
    assert mirror.copy_of("another") is None
    recorder.close()


def test_the_machine_comes_last_on_the_server_too(out, server):
    recorder = Recorder(out)
    run = begun(recorder, "measured")
    run.metrics([("machine/cpu", 50.0, 0)])
    mirror = Mirror(recorder.local.client, f"sqlite:///{server}")
    mirror.copy(run.run_id)
    assert found(server, "measured")[1][0].data.metrics == {}
    run.metrics([("seconds/score", 1.0, 0), ("score/correlation", 0.5, 0)])
    run.end("FINISHED")
    mirror.copy(run.run_id)
    for database in (server, out / "mlflow.db"):
        (one,) = found(database, "measured")[1]
        names = [name for name in one.data.metrics if not name.startswith("machine/")]
        assert names == ["score/correlation", "seconds/score"]
        assert next(reversed(one.data.metrics)).startswith("machine/")
    recorder.close()


def test_what_a_server_missed_is_sent_later_and_only_once(
    out, server, log_later, monkeypatch, capsys
):
    record(out, "in vain")
    message = capsys.readouterr().err
    assert "mlflow     not sent to the server: " in message
    assert f"neuron-atlas-log {out}" in message
    assert log_later() == 1
    assert f"; 1 runs remain in {out}" in capsys.readouterr().err

    comes_back(server, monkeypatch)
    assert log_later() == 0
    assert f"mlflow     all 1 runs are at sqlite:///{server}" in capsys.readouterr().err
    sent = everything(server)
    assert sent == everything(out / "mlflow.db")
    assert log_later() == 0
    assert everything(server) == sent


def test_the_next_run_in_the_folder_sends_what_an_earlier_one_could_not(out, server, monkeypatch):
    record(out, "earlier")
    comes_back(server, monkeypatch)
    record(out, "next")
    assert everything(server) == everything(out / "mlflow.db")


@pytest.mark.parametrize("dies_at", [1, 3, 4, 5, 7, 9, 11])
def test_a_server_that_dies_in_the_middle_of_a_run_gets_the_whole_afterwards(
    out, server, log_later, monkeypatch, dies_at
):
    """It dies at any of the calls, once before and once after it has done what it was asked."""
    comes_back(server, monkeypatch)
    calls = [
        *("get_experiment_by_name", "create_experiment", "search_runs", "create_run"),
        *("log_batch", "log_inputs", "create_logged_model", "log_artifact", "set_terminated"),
    ]
    made = []

    def dying(name: str, has_done_it: bool):
        real = getattr(MlflowClient, name)

        def call(self, *given, **named):
            if self.tracking_uri != os.environ["MLFLOW_TRACKING_URI"]:
                return real(self, *given, **named)
            made.append(name)
            if len(made) >= dies_at:
                if has_done_it and len(made) == dies_at:
                    real(self, *given, **named)
                raise ConnectionError("gone")
            return real(self, *given, **named)

        return call

    for has_done_it in (True, False):
        made.clear()
        with monkeypatch.context() as patch:
            for name in calls:
                patch.setattr(MlflowClient, name, dying(name, has_done_it))
            record(out, f"cut off, {has_done_it}")
        assert len(made) >= dies_at
        assert log_later() == 0
        assert everything(server) == everything(out / "mlflow.db")


def test_a_server_that_goes_and_comes_back_in_mid_run_is_said_twice(
    out, server, monkeypatch, capsys
):
    comes_back(server, monkeypatch)
    monkeypatch.setattr(live_mirror, "_INTERVAL_S", 0.02)
    monkeypatch.setattr(live_mirror, "_MAX_PAUSE_S", 0.02)
    copy, tried = Mirror.copy, []

    def down_for_a_while(self, run_id):
        tried.append(run_id)
        if 2 <= len(tried) <= 5:
            raise ConnectionError("gone")
        return copy(self, run_id)

    monkeypatch.setattr(Mirror, "copy", down_for_a_while)
    recorder = Recorder(out)
    run = begun(recorder, "between")
    while len(tried) < 7:
        time.sleep(0.01)
    assert found(server, "between")[1][0].info.status == "RUNNING"
    run.end("FINISHED")
    recorder.close()
    message = capsys.readouterr().err
    assert message.count("mlflow     cannot be reached: gone; the run goes on") == 1
    assert message.count("mlflow     can be reached again") == 1
    assert everything(server) == everything(out / "mlflow.db")


def test_the_jobs_of_a_sweep_are_below_it_on_the_server_too(out, server, log_later, monkeypatch):
    recorder = Recorder(out)
    parent = begun(recorder, "a sweep")
    for name in ("one", "two"):
        begun(recorder, name, parent).end("FINISHED")
    parent.end("FINISHED")
    recorder.close()
    comes_back(server, monkeypatch)
    assert log_later() == 0
    _, (top,) = found(server, "a sweep")
    for name in ("one", "two"):
        _, (job,) = found(server, name)
        assert job.data.tags["mlflow.parentRunId"] == top.info.run_id
    assert everything(server) == everything(out / "mlflow.db")


def test_a_job_that_is_sent_before_its_sweep_takes_it_along(out, server):
    recorder = Recorder(out)
    parent = begun(recorder, "a sweep")
    job = begun(recorder, "one", parent)
    Mirror(recorder.local.client, f"sqlite:///{server}").copy(job.run_id)
    (top,), (below,) = found(server, "a sweep")[1], found(server, "one")[1]
    assert below.data.tags["mlflow.parentRunId"] == top.info.run_id
    recorder.close()


def test_a_program_that_is_killed_leaves_a_run_that_is_ended_as_killed(
    out, server, log_later, monkeypatch
):
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from neuron_atlas.workflows.tracking.recorder import Recorder, RunRecord\n"
        "run = RunRecord(Recorder(Path(sys.argv[1])), 'neuron-atlas', 'shot', '', {}, {})\n"
        "run.metrics([('explain/usd', 1.5, 10)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(out)])
    assert ended.returncode == -9
    comes_back(server, monkeypatch)
    assert log_later() == 0
    client, (run,) = found(server, "shot")
    assert run.info.status == "KILLED"
    assert run.data.metrics["explain/usd"] == 1.5
    assert run.data.tags["error"] == "its program was killed"
    (point,) = client.get_metric_history(run.info.run_id, "explain/usd")
    assert run.info.end_time == point.timestamp


def test_runs_that_go_on_are_left_to_their_programs(out, server, log_later, monkeypatch, capsys):
    first = Recorder(out)
    run = begun(first, "first")
    assert run.run_id
    assert log_later() == 2
    assert "a run is active here" in capsys.readouterr().err
    second = Recorder(out)
    begun(second, "second").end("FINISHED")
    second.close()
    assert found(out / "mlflow.db", "first")[1][0].info.status == "RUNNING"
    first.close()


def test_what_mlflow_refuses_is_said_and_holds_up_nothing(out, capsys):
    recorder = Recorder(out)
    run = begun(recorder, "refused")
    run.metrics([("a name that is too long" * 20, 1.0, 0)])
    run.files(out, ["gone.html"], "report")
    run.metrics([("neurons/all", 5.0, 0)])
    run.end("FINISHED")
    recorder.close()
    message = capsys.readouterr().err
    assert "mlflow     will not log metrics: " in message
    assert "mlflow     will not log files: " in message
    _, (found_run,) = found(out / "mlflow.db", "refused")
    assert found_run.info.status == "FINISHED"
    assert found_run.data.metrics["neurons/all"] == 5.0


def test_a_deleted_experiment_is_said_once_with_the_remedy(out, capsys):
    record(out, "before")
    client, (run,) = found(out / "mlflow.db", "before")
    client.delete_experiment(run.info.experiment_id)
    recorder = Recorder(out)
    refused = begun(recorder, "refused")
    refused.metrics([("neurons/all", 5.0, 0)])
    refused.note("a note")
    refused.end("FINISHED")
    recorder.close()
    said = capsys.readouterr().err.splitlines()
    (line,) = [one for one in said if one.startswith("mlflow     ")]
    number = run.info.experiment_id
    assert f"mlflow experiments restore --experiment-id {number}), or set tracking.exp" in line
    assert refused.display_uri == "this run is not recorded (see above)"


def test_an_experiment_that_was_deleted_on_the_server_is_said_with_the_remedy(
    out, server, monkeypatch, capsys
):
    comes_back(server, monkeypatch)
    record(out, "first")
    client, (run,) = found(server, "first")
    client.delete_experiment(run.info.experiment_id)
    capsys.readouterr()
    recorder = Recorder(out)
    second = begun(recorder, "second")
    second.end("FINISHED")
    recorder.close()
    said = capsys.readouterr().err
    assert f"restore --experiment-id {run.info.experiment_id})" in said
    assert "cannot be reached" not in said
    assert second.display_uri == recorder.local.uri


def test_what_a_server_refuses_is_said_and_the_rest_is_sent(out, server, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise MlflowException.invalid_parameter_value("no external models here")

    comes_back(server, monkeypatch)
    monkeypatch.setattr(mirror, "log_subject", refuse)
    record(out, "old server")
    assert "refuses inputs of 'old server': " in capsys.readouterr().err
    _, (run,) = found(server, "old server")
    assert run.info.status == "FINISHED"


def test_a_run_that_was_deleted_on_the_server_stays_deleted(out, server, log_later, monkeypatch):
    comes_back(server, monkeypatch)
    record(out, "deleted")
    client, (run,) = found(server, "deleted")
    client.delete_run(run.info.run_id)
    assert log_later() == 0
    runs = client.search_runs([run.info.experiment_id], run_view_type=ViewType.ALL)
    assert [one.info.lifecycle_stage for one in runs] == ["deleted"]


def test_a_server_that_has_forgotten_a_run_gets_all_of_it_again(out, server):
    recorder = Recorder(out)
    run = begun(recorder, "forgotten")
    run.metrics([("neurons/all", 5.0, 0)])
    copies = Mirror(recorder.local.client, f"sqlite:///{server}")
    assert not copies.copy(run.run_id)
    copies._copies[run.run_id].run_id = "0" * 32
    run.end("FINISHED")
    assert copies.copy(run.run_id)
    recorder.close()
    assert everything(server) == everything(out / "mlflow.db")


def test_a_damaged_database_costs_a_line_and_not_the_run(out, log_later, monkeypatch, capsys):
    (out / "mlflow.db").write_text("no database")
    record(out, "broken")
    assert "mlflow     will not log " in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
    assert log_later() == 1
    assert "neuron-atlas-log: not sent: " in capsys.readouterr().err


def test_a_folder_that_is_not_there_yet_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalRuns, "__init__", LocalRuns.__init__.__wrapped__)  # Copies nothing.
    recorder = Recorder(tmp_path / "new" / "out")
    begun(recorder, "first").end("FINISHED")
    recorder.close()
    assert found(tmp_path / "new" / "out" / "mlflow.db", "first")[1][0].info.status == "FINISHED"


@pytest.mark.parametrize(
    ("folder", "uri", "said"),
    [
        ("nothing", NOWHERE, "nothing: no runs are recorded here"),
        ("out", "", "set MLFLOW_TRACKING_URI"),
    ],
)
def test_a_wrong_call_ends_with_2_and_a_line(out, tmp_path, monkeypatch, capsys, folder, uri, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(sys, "argv", ["neuron-atlas-log", str(tmp_path / folder)])
    with pytest.raises(SystemExit) as ended:
        log_command.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_the_machine_is_measured_unless_that_is_turned_off(out, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    for setting, name in (("true", "measured"), ("false", "not measured")):
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", setting)
        recorder = Recorder(out)
        run, deadline = begun(recorder, name), time.monotonic() + 60
        client = recorder.local.client
        while setting == "true" and time.monotonic() < deadline:
            if "machine/cpu_utilization_percentage" in client.get_run(run.run_id).data.metrics:
                break
            time.sleep(0.05)
        run.end("FINISHED")
        recorder.close()
        _, (found_run,) = found(out / "mlflow.db", name)
        has = "machine/cpu_utilization_percentage" in found_run.data.metrics
        assert has == (setting == "true")
