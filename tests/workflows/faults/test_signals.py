"""SIGINT and SIGTERM in the middle of every stage, and the run that goes on."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.infra.clusters import Running, running
from tests.workflows.faults.faults import atlas
from tests.workflows.runs import runs_in
from tests.workflows.test_resume import begun_shards, below, shards

pytestmark = pytest.mark.faults
PARTED = ("capture.shards=8", "explain.neurons_per_task=1", "cluster.actors=1")
FINISHED = {
    "samples": "samples/*/samples-*.parquet",
    "describe": "describe/*/descriptions-*.parquet",
    "capture": "capture/*/shards/shard-*",
    "merge": "capture/*/exemplars-layer-*.parquet",
    "classify": "classify/*/types-layer-*.parquet",
    "analyse": "analyse/*/words-*.parquet",
    "evidence": "evidence/*/replay/*/shard-*",
    "gather": "evidence/*/evidence-layer-*.arrow",
    "explain": "explain/*/explanations-*.parquet",
    "near misses": "near_misses/*/replay/*/shard-*",
    "simulate": "simulate/*/simulations-*.parquet",
    "score": "score/*/scores-*.parquet",
    "report": "report/*",
}
"""What a stage writes first, which is when the signal comes."""
LAST = "neuron-atlas: interrupted; finished work is kept, and the same command goes on from there"
GOES_ON = "stopping   once the running work has ended; another signal stops at once"


@dataclass
class Story:
    out: Path
    statuses: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    kept: dict[str, tuple[set[Path], set[Path]]] = field(default_factory=dict)
    last_status: int = -1


def terminate(run: Running) -> None:
    """As SLURM and Kubernetes do it."""
    run.process.terminate()


def interrupt(run: Running) -> None:
    """As a terminal does it, which tells all that the driver has started too."""
    os.killpg(run.process.pid, signal.SIGINT)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("signals")
    told = Story(folder / "out")
    for place, (stage, pattern) in enumerate(FINISHED.items()):
        with running(atlas(told.out, *PARTED), folder / f"{stage}.log") as run:
            before = set(below(told.out, pattern))

            def reached(pattern: str = pattern, before: set[Path] = before) -> bool:
                return bool(set(below(told.out, pattern)) - before)

            run.run_until(reached)
            at_signal = set(below(told.out, pattern))
            (terminate, interrupt)[place % 2](run)
            told.statuses[stage] = run.end()
            told.said[stage] = run.said()
            told.kept[stage] = (at_signal, set(below(told.out, pattern)))
    with running(atlas(told.out, *PARTED), folder / "last.log") as last:
        told.last_status = last.end()
    return told


@pytest.mark.parametrize("stage", FINISHED)
def test_the_run_ends_with_130_and_says_how_to_go_on(story, stage):
    assert story.statuses[stage] == 130, story.said[stage]
    assert story.said[stage].splitlines()[-1] == LAST
    assert "Traceback" not in story.said[stage]


@pytest.mark.parametrize("stage", ["capture", "explain", "simulate"])
def test_what_was_under_way_is_finished_and_nothing_is_lost(story, stage):
    at_signal, kept = story.kept[stage]
    assert at_signal < kept
    assert GOES_ON in story.said[stage]


def test_no_shard_is_left_half_written(story):
    assert begun_shards(story.out) == set()


def test_mlflow_knows_that_they_were_stopped(story):
    _, runs = runs_in(story.out / "mlflow.db")
    assert [run.info.status for run in runs] == ["KILLED"] * len(FINISHED) + ["FINISHED"]


def test_the_last_call_finishes_with_the_rows_of_an_undisturbed_run(story, strange_tables):
    assert story.last_status == 0
    assert strange_tables(story.out) == []


LONG = ("data.count=600", "capture.shards=1", "capture.batch_size=2", "cluster.actors=1")


def begin_shard(run: Running, out: Path) -> None:
    """Let it come into a shard that takes seconds."""
    run.run_until(lambda: "capture    weights" in run.said())
    assert not shards(out)


def test_a_first_signal_lets_a_long_shard_finish(tmp_path):
    out = tmp_path / "out"
    with running(atlas(out, *LONG), tmp_path / "log") as run:
        begin_shard(run, out)
        run.process.terminate()
        assert run.end() == 130, run.said()
        assert run.said().splitlines()[-1] == LAST
    assert len(shards(out)) == 1


def test_control_without_the_protection_the_shard_is_lost(tmp_path):
    out = tmp_path / "out"
    with running(atlas(out, *LONG, without="defer_signals"), tmp_path / "log") as run:
        begin_shard(run, out)
        run.process.terminate()
        assert run.end() == 130, run.said()
    assert shards(out) == set()


def test_a_second_signal_stops_at_once(tmp_path):
    out = tmp_path / "out"
    with running(atlas(out, *LONG), tmp_path / "log") as run:
        begin_shard(run, out)
        interrupt(run)
        run.run_until(lambda: GOES_ON in run.said())
        interrupt(run)
        assert run.end() == 130, run.said()
        assert run.said().splitlines()[-1] == LAST
    assert shards(out) == set()
    _, (logged,) = runs_in(out / "mlflow.db")
    assert logged.info.status == "KILLED"
