"""MLflow: one run a call, and no tracking server ever costs a run its results."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from neuron_atlas.tasks.artifacts import SCORE_AGGREGATES, SCORES, TYPES, read_table
from neuron_atlas.tasks.report.controls import CONTROLS
from neuron_atlas.workflows import atlas
from neuron_atlas.workflows.stages import samples
from neuron_atlas.workflows.tracking.metrics import (
    MACHINE,
    METRICS,
    metric_position,
    read_summary,
    summary_metrics,
)
from neuron_atlas.workflows.tracking.tracker import Tracker
from tests.workflows.runs import TOP_N, runs_in, small_run

CONTROL_METRICS = {
    "score/correlation_of_other_explanation",
    "score/correlation_of_empty_explanation",
    "score/correlation_without_explanation",
}


def table_of(logged: tuple[MlflowClient, Run], name: str) -> list[list[Any]]:
    """The rows of a logged table."""
    client, run = logged
    path = Path(client.download_artifacts(run.info.run_id, name))
    rows: list[list[Any]] = json.loads(path.read_text(encoding="utf-8"))["data"]
    return rows


def rows_of(logged: tuple[MlflowClient, Run], name: str) -> list[dict[str, Any]]:
    """The rows of a logged table, by its columns."""
    client, run = logged
    path = Path(client.download_artifacts(run.info.run_id, name))
    columns = json.loads(path.read_text(encoding="utf-8"))["columns"]
    return [dict(zip(columns, row, strict=True)) for row in table_of(logged, name)]


@pytest.fixture(scope="module")
def logged(first_run) -> tuple[MlflowClient, Run]:
    client, (run, *_) = runs_in(first_run.store.out / "mlflow.db")
    return client, run


def test_a_run_that_finished_says_so_and_what_was_asked(logged):
    _, run = logged
    assert run.info.status == "FINISHED"
    assert run.data.params["capture.top_n"] == str(TOP_N)
    assert run.data.params["capture.layers"] == "[1, 3]"
    assert run.data.params["data.class"] == "neuron_atlas.tasks.samples.scenes.Scenes"
    assert run.data.params["subject.question"] == "Could you describe the image?"
    assert run.data.tags["stages_already_done"] == "none"


def test_it_says_what_every_stage_took_and_how_many_rows_there_are(logged, first_run):
    metrics = logged[1].data.metrics
    for stage in first_run.done:
        assert metrics[f"seconds/{stage}"] == pytest.approx(first_run.stats.seconds[stage])
    rows = {name: count for _, name, count in table_of(logged, "tables/rows.json")}
    assert rows["samples"] == 150
    assert rows["scores"] == first_run.done["score"].rows["scores"]


def test_it_says_what_the_neurons_and_their_scores_are(logged, first_run):
    metrics = logged[1].data.metrics
    summary = read_summary(first_run)
    for kind in TYPES:
        assert metrics[f"neurons/{kind}"] == summary["neurons"][kind]
    shares = [value for name, value in metrics.items() if name.startswith("neurons_share/")]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(1)
    assert metrics["score/correlation"] == pytest.approx(summary["mean_score"])
    assert metrics["score/correlation_of_control"] == pytest.approx(summary["mean_control"])
    controls = [value for name, value in metrics.items() if name in CONTROL_METRICS]
    assert metrics["score/correlation_of_control"] == max(controls)
    assert logged[1].data.tags["strongest_control"] == CONTROLS[summary["strongest_control"]]
    assert metrics["score/neurons_scored"] == summary["n_scored"]
    assert metrics["score/margin_over_control"] == pytest.approx(summary["mean_margin"])
    assert metrics["score/neurons_tested"] == summary["n_tested"] > 0
    assert metrics["score/neurons_that_beat_control"] == summary["n_beat_control"]


def test_every_aggregate_over_all_neurons_is_logged_with_its_interval(logged, first_run):
    table = read_table(first_run.paths("score", "score_aggregates"), SCORE_AGGREGATES)
    kept = rows_of(logged, "tables/scores.json")
    for row, its in zip(kept, table.to_pylist(), strict=True):
        for name in ("tokens", "by", "group", "measure", "undefined"):
            assert row[name] == its[name]
        for name in ("mean", "ci_low", "ci_high"):
            assert row[name] == pytest.approx(its[name], abs=1e-9)
    assert {row["group"] for row in kept if row["by"] == "layer"} == {"1", "3"}
    assert len([row for row in kept if row["by"] == "all"]) == 3 * 21


def test_types_by_layer_and_how_they_agree_and_respond_are_tables(logged):
    client, run = logged
    files = {file.path for file in client.list_artifacts(run.info.run_id, "report/tables")}
    for name in ("types_by_layer", "type_shares", "type_kappa", "type_responses", "type_concepts"):
        assert f"report/tables/{name}.csv" in files


def test_no_metric_is_the_value_of_one_layer(logged):
    """MLflow would show the last layer's value as the run's."""
    client, run = logged
    for name in run.data.metrics:
        if not name.startswith(MACHINE):
            (point,) = client.get_metric_history(run.info.run_id, name)
            assert point.step == 0


def test_there_are_about_forty_metrics_and_a_time_per_stage_and_each_is_described(logged):
    names = list(logged[1].data.metrics)
    assert 20 < sum(not name.startswith("seconds/") for name in names) < 45
    described = len(METRICS) + sum(name.count(", ") for name, _ in METRICS)
    assert [name for name in names if metric_position(name) >= described] == []


def test_results_come_before_costs_and_the_machine_comes_last(first_run, tmp_path):
    tracker = Tracker(first_run.settings, tmp_path, {})
    tracker.log_live({"explain/usd": 1.5, "explain/requests": 3.0, "explain/calls/ok": 3.0}, 10)
    record = tracker._record
    record.metrics([("machine/cpu_utilization_percentage", 50.0, 0)])
    tracker.finish(first_run, "FINISHED")
    _, (run,) = runs_in(tmp_path / "mlflow.db")
    names = list(run.data.metrics)
    groups = list(dict.fromkeys(name.split("/")[0] for name in names))
    assert names[0] == "score/correlation"
    results = ["score", "neurons", "neurons_share", "search", "cost", "failed_rows"]
    assert groups == [*results, "seconds", "explain", "machine"]
    assert "explain/calls/ok" not in names
    assert run.data.metrics["cost/usd"] == 1.5


def test_the_explanations_are_a_table_with_score_control_and_margin_the_best_first(
    logged, first_run
):
    rows = rows_of(logged, "explanations.json")
    scores = read_table(first_run.paths("score", "scores"), SCORES).to_pylist()
    scored = {(row["layer"], row["neuron"]): row for row in scores if row["tokens"] == "all"}
    margins = [row["margin"] for row in rows if row["margin"] is not None]
    assert len(margins) > 20
    assert margins == sorted(margins, reverse=True)
    assert all(row["margin"] is None for row in rows[len(margins) :])
    for row in rows[: len(margins)]:
        its = scored[row["layer"], row["neuron"]]
        assert row["score"] == pytest.approx(its["correlation"])
        known = {name: its[name] for name in CONTROLS if its[name] is not None}
        assert row["control"] == pytest.approx(max(known.values()))
        assert row["strongest_control"] in CONTROLS.values()


def test_the_description_shows_types_and_scores_as_pictures(logged):
    client, run = logged
    pictures = {file.path for file in client.list_artifacts(run.info.run_id, "pictures")}
    assert pictures == {"pictures/types_by_layer.png", "pictures/scores.png"}
    note = run.data.tags["mlflow.note.content"]
    for name in ("types_by_layer", "scores"):
        address = f"get-artifact?path=pictures%2F{name}.png&run_uuid={run.info.run_id}"
        assert f"]({address})" in note


def test_the_experiment_stores_a_table_with_the_main_columns(logged):
    client, run = logged
    tags = client.get_experiment(run.info.experiment_id).tags
    (view,) = [value for name, value in tags.items() if name.startswith("mlflow.sharedViewState.")]
    columns = json.loads(json.loads(view)["state"])["selectedColumns"]
    metrics = {name[9:-1] for name in columns if name.startswith("metrics.")}
    assert {"score/correlation", "score/correlation_of_control"} < metrics
    assert metrics <= set(run.data.metrics)
    assert {name[6:-1] for name in columns if name.startswith("tags.")} <= set(run.data.tags)


def test_the_dataset_is_an_input_with_its_name_and_content(logged, first_run):
    (given,) = logged[1].inputs.dataset_inputs
    assert given.dataset.name == "150 drawn scenes, seed 0"
    assert given.dataset.digest == first_run.done["samples"].content[:16]
    assert {tag.key: tag.value for tag in given.tags}["samples"] == "150"


def test_the_subject_is_an_input_by_what_its_weights_are(logged, first_run):
    client, run = logged
    (given,) = client.get_run(run.info.run_id).inputs.model_inputs
    model = client.get_logged_model(given.model_id)
    assert model.name == "llava-scenes"
    assert model.params["revision"] == first_run.subject_identity()["revision"]


def test_its_name_tags_and_description_say_what_was_run_and_what_came_out(logged, first_run):
    _, run = logged
    assert run.info.run_name == "llava-scenes, layers 1, 3, dissect"
    tags = run.data.tags
    assert tags["layers"] == "1, 3"
    assert tags["explainer"] == "dissect"
    assert tags["dataset"] == "150 drawn scenes, seed 0"
    note = tags["mlflow.note.content"]
    summary = read_summary(first_run)
    assert note.startswith("- **Types** of 1,024 neurons: ")
    assert "|" not in note
    assert f" {summary['neurons']['visual']:,} visual (" in note
    assert f"strongest control {summary['mean_control']:.3f}, " in note
    assert f"{CONTROLS[summary['strongest_control']]}; margin {summary['mean_margin']:.3f}" in note
    assert f"{summary['mean_score']:.3f}" in note
    assert "report/index.html" in note


def test_every_group_of_metrics_is_described(logged):
    note = logged[1].data.tags["mlflow.note.content"]
    groups = {name.split("/")[0] for name in logged[1].data.metrics}
    assert {"neurons_share", "score", "seconds"} < groups
    assert [group for group in groups if f"`{group}/" not in note] == []


def test_the_score_comes_first_for_a_comparison_opens_with_it(logged):
    assert next(iter(logged[1].data.metrics)) == "score/correlation"


def test_page_figures_tables_and_manifest_are_its_artifacts(logged):
    client, run = logged

    def below(folder: str) -> set[str]:
        return {Path(file.path).name for file in client.list_artifacts(run.info.run_id, folder)}

    assert {"manifest.json", "report"} <= below("")
    assert {"index.html", "summary.json", "figures", "tables"} <= below("report")
    assert "scores.png" in below("report/figures")
    assert any(name.endswith(".csv") for name in below("report/tables"))


def test_a_run_that_did_nothing_again_is_logged_with_the_same_results(
    first_run, logged, shared_mlflow
):
    context = small_run(first_run.store.out)
    _, logs = runs_in(shared_mlflow / "mlflow.db")
    run = logs[-1]
    assert run.data.tags["stages_already_done"] == ", ".join(context.stats.skipped)
    assert run.data.metrics["score/correlation"] == logged[1].data.metrics["score/correlation"]
    assert not [name for name in run.data.metrics if name.startswith("seconds/")]


def test_the_server_that_the_environment_names_gets_the_run_too(first_run, shared_mlflow, capsys):
    own = len(runs_in(first_run.store.out / "mlflow.db")[1])
    small_run(first_run.store.out, "tracking.run_name=elsewhere")
    client, logs = runs_in(shared_mlflow / "mlflow.db")
    assert logs[-1].info.run_name == "elsewhere"
    assert len(runs_in(first_run.store.out / "mlflow.db")[1]) == own + 1
    assert f"mlflow     sqlite:///{shared_mlflow}/mlflow.db" in capsys.readouterr().err
    place = client.get_run(logs[-1].info.run_id).info.artifact_uri
    assert place.startswith((shared_mlflow / "mlartifacts").as_uri())


def test_a_server_that_is_not_there_costs_a_line_and_a_few_seconds(first_run, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    begun = time.monotonic()
    context = small_run(first_run.store.out)
    assert time.monotonic() - begun < 20
    assert context.stats.skipped
    said = capsys.readouterr().err
    assert "mlflow     not sent to the server: " in said
    assert "127.0.0.1" in said
    assert "Traceback" not in said


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_does_not_hold_up_a_run_for_minutes(
    first_run, silent_server, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    begun = time.monotonic()
    small_run(first_run.store.out)
    assert time.monotonic() - begun < 20
    assert "mlflow     not sent to the server: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("it broke"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_that_does_not_finish_is_logged_as_such_with_its_reason(
    first_run, shared_mlflow, monkeypatch, error, status
):
    def stop(_):
        raise error

    stopped = replace(samples.STAGE, check=stop)
    monkeypatch.setattr(atlas, "BEFORE_EXPLAINING", (stopped, *atlas.BEFORE_EXPLAINING[1:]))
    with pytest.raises(type(error)):
        small_run(first_run.store.out)
    _, logs = runs_in(shared_mlflow / "mlflow.db")
    assert logs[-1].info.status == status
    assert logs[-1].data.tags.get("error", "") == str(error)


def test_what_was_not_measured_is_no_metric():
    summary = {
        "neurons": {"visual": 3, "text": 1},
        "mean_score": None,
        "mean_control": None,
        "strongest_control": None,
        "mean_controls": {"control_other": None, "control_empty": None, "control_blind": None},
        "mean_margin": None,
        "mean_of": {"purity": None, "recall": 0.5, "control_broader": 0.25},
        "search": {"clarity_text": 0.25, "clarity_visual": None},
        "mean_responses": {"meanings": None},
        "n_scored": 0,
        "by_explainer": [],
        "n_tested": 0,
        "n_beat_control": 0,
        "level": None,
        "failures": [{"table": "samples", "status": "missing", "count": 2}],
    }
    assert {name: value for name, value, _ in summary_metrics(summary)} == {
        "neurons/all": 4.0,
        "neurons/visual": 3.0,
        "neurons/text": 1.0,
        "neurons_share/visual": 0.75,
        "neurons_share/text": 0.25,
        "score/neurons_scored": 0.0,
        "score/neurons_tested": 0.0,
        "score/neurons_that_beat_control": 0.0,
        "failed_rows/all": 2.0,
        "score/recall": 0.5,
        "search/clarity_text": 0.25,
    }


def test_a_config_of_many_and_of_long_values_is_logged_in_full(first_run, tmp_path):
    config = {"long": "x" * 9000} | {"prices": {f"model-{n}": n for n in range(250)}}
    tracker = Tracker(first_run.settings, tmp_path, config)
    tracker.finish(first_run, "FINISHED")
    _, (run,) = runs_in(tmp_path / "mlflow.db")
    assert len(run.data.params) == 251
    assert run.data.params["prices.model-249"] == "249"
    assert set(run.data.params["long"]) == {"x"}
