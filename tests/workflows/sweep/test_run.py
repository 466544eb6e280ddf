"""A sweep whose jobs are stood in for: order, failures, interruption, what is left of each."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neuron_atlas.workflows.run.errors import ConfigError, RunError
from neuron_atlas.workflows.sweep import run as sweep_run
from neuron_atlas.workflows.sweep.run import run_sweep
from neuron_atlas.workflows.tracking.tracker import Tracker
from tests.workflows.runs import composed, runs_in

FOUR = (0, 1, 2, 3)


class Stage:
    """Stands in for the work, and keeps what was asked of it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.clusters = 0
        self.captured: list[Any] = []
        self.ran: list[Any] = []
        self.fail: dict[Any, BaseException] = {}
        self.capture_fails: BaseException | None = None

    @contextmanager
    def cluster(self, settings: object) -> Iterator[None]:
        self.clusters += 1
        yield

    def run_through_capture(self, settings: Any) -> Any:
        self.captured.append(settings.capture.layers)
        if self.capture_fails is not None:
            raise self.capture_fails
        return self._context(settings)

    def run_atlas(self, config: Any, membership: Any) -> Any:
        layers = config["capture"]["layers"]
        self.ran.append(layers)
        settings = next(
            job.settings
            for job in membership.record.jobs
            if job.config["capture"]["layers"] == layers
        )
        context = self._context(settings)
        tracker = Tracker(settings, self.out, config, membership)
        if layers in self.fail:
            tracker.finish(context, "FAILED", str(self.fail[layers]))
            raise self.fail[layers]
        tracker.finish(context, "FINISHED")
        if not settings.is_dry_run:
            (self.out / "manifest.json").write_text(json.dumps({"artifacts": {"of": layers}}))
        return context

    def _context(self, settings: Any) -> Any:
        return SimpleNamespace(
            settings=settings,
            store=SimpleNamespace(out=self.out),
            done={},
            seconds={},
            skipped=[],
            unfinished=[],
            manifests=lambda: [],
            paths=lambda *_: [],
        )


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_mlflow: Path) -> Stage:
    stood_in = Stage(tmp_path)
    for name in ("cluster", "run_through_capture", "run_atlas"):
        monkeypatch.setattr(sweep_run, name, getattr(stood_in, name))
    return stood_in


@pytest.fixture
def sweep(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    real = sweep_run.SweepRecord.membership

    def membership(self: Any, job: Any) -> Any:
        made = real(self, job)
        made.record.jobs = self._jobs
        return made

    monkeypatch.setattr(sweep_run.SweepRecord, "membership", membership)

    def call(name: str, *more: str) -> int:
        overrides = [
            [f"capture.layers={layer}", f"out={stage.out}", f"tracking.run_name={name}", *more]
            for layer in FOUR
        ]
        return run_sweep(overrides, [composed(*one) for one in overrides])

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def logged(there: Path, name: str) -> tuple[Any, dict[str, Any]]:
    """The run of a sweep, and those of its jobs by their name."""
    _, runs = runs_in(there / "mlflow.db")
    (parent,) = [run for run in runs if run.info.run_name == f"{name}: layers=0,1,2,3"]
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return parent, {run.info.run_name: run for run in below}


def test_one_cluster_and_one_capture_serve_all_jobs(stage, sweep, shared_mlflow):
    assert sweep("whole") == 0
    assert stage.clusters == 1
    assert stage.captured == [FOUR]
    assert stage.ran == [0, 1, 2, 3]
    parent, jobs = logged(shared_mlflow, "whole")
    assert parent.info.status == "FINISHED"
    assert list(jobs) == [f"layers={layer}" for layer in FOUR]
    assert {run.info.status for run in jobs.values()} == {"FINISHED"}
    assert parent.data.params["capture.layers"] == "0 | 1 | 2 | 3"
    assert parent.data.params["capture.top_n"] == "50"
    assert parent.data.tags["sweep"] == "capture.layers=0,1,2,3"
    assert jobs["layers=2"].data.tags["job"] == "capture.layers=2"


def test_each_job_keeps_the_manifest_of_its_own_artifacts(stage, sweep):
    sweep("manifests")
    folder = stage.out / "sweep" / "capture.layers=0,1,2,3" / "jobs"
    for layer in FOUR:
        manifest = json.loads((folder / f"capture.layers={layer}.json").read_text())
        assert manifest == {
            "artifacts": {"of": layer},
            "job": {"capture.layers": str(layer)},
        }


def test_a_sweep_of_dry_runs_finishes_and_keeps_no_manifest_of_another_run(stage, sweep):
    (stage.out / "manifest.json").write_text(json.dumps({"artifacts": {"of": "a run before"}}))
    assert sweep("dry", "simulate.dry_run=true") == 0
    assert stage.ran == [0, 1, 2, 3]
    assert list((stage.out / "sweep").rglob("*.json")) == []


@pytest.mark.parametrize(
    ("errors", "status"),
    [
        ({1: RunError("too few")}, 1),
        ({1: ConfigError("no such layer")}, 2),
        ({0: ConfigError("no such layer"), 2: ZeroDivisionError("by chance")}, 1),
    ],
)
def test_a_job_that_fails_is_told_and_the_others_go_on(
    stage, sweep, shared_mlflow, capsys, errors, status
):
    stage.fail = errors
    name = f"failing {status} {len(errors)}"
    assert sweep(name) == status
    assert stage.ran == [0, 1, 2, 3]
    said = capsys.readouterr().err
    assert f"sweep      {4 - len(errors)} of 4 jobs finished" in said
    parent, jobs = logged(shared_mlflow, name)
    assert parent.info.status == "FAILED"
    for layer, error in errors.items():
        job = f"capture.layers={layer}"
        assert f"neuron-atlas: {job}: " in said
        assert jobs[f"layers={layer}"].info.status == "FAILED"
        assert f"- **{job}**: " in parent.data.tags["mlflow.note.content"]
        if not isinstance(error, ZeroDivisionError):
            assert f"{job}: {error}" in parent.data.tags["error"]
    assert parent.data.metrics["sweep/jobs_failed"] == len(errors)


def test_an_interruption_ends_the_sweep_and_keeps_what_was_finished(
    stage, sweep, shared_mlflow, capsys
):
    stage.fail = {1: KeyboardInterrupt()}
    assert sweep("interrupted") == 130
    assert stage.ran == [0, 1]
    said = capsys.readouterr().err
    assert "the same command goes on from there" in said
    assert "sweep      1 of 4 jobs finished" in said
    parent, _ = logged(shared_mlflow, "interrupted")
    assert parent.info.status == "KILLED"
    assert parent.data.metrics["sweep/jobs_not_started"] == 2


def test_where_the_shared_capture_fails_each_job_is_tried_by_itself(stage, sweep, capsys):
    stage.capture_fails = ConfigError("layer 99 does not exist")
    assert sweep("apart") == 0
    assert stage.ran == [0, 1, 2, 3]
    said = capsys.readouterr().err
    assert "layer 99 does not exist" in said
    assert said.count("the jobs go on, each by itself") == 1


def test_a_cluster_that_is_not_there_ends_the_sweep_before_its_jobs(
    stage, sweep, shared_mlflow, monkeypatch
):
    @contextmanager
    def absent(settings: object) -> Iterator[None]:
        raise ConfigError("no Ray cluster")
        yield

    monkeypatch.setattr(sweep_run, "cluster", absent)
    with pytest.raises(ConfigError, match="no Ray cluster"):
        sweep("absent")
    assert stage.ran == []
    parent, _ = logged(shared_mlflow, "absent")
    assert (parent.info.status, parent.data.tags["error"]) == ("FAILED", "no Ray cluster")
