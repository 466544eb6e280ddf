"""SIGINT and SIGTERM in the middle of every stage, and the run that goes on. `make test-faults`."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.workflows.programs import Program, program
from tests.workflows.runs import SMALL, SPECS, Atlas, runs_in, small_run
from tests.workflows.test_resume import begun_shards, below, same, shards

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]
SCENES = "data.count=160"
PARTED = ("capture.shards=8", "explain.neurons_per_task=1", "describe.batch_size=4")
FINISHED = {
    "samples": "samples/*/samples-*.parquet",
    "describe": "describe/*/descriptions-*.parquet",
    "capture": "capture/*/shards/shard-*",
    "merge": "capture/*/traces-layer-*.parquet",
    "classify": "classify/*/types-layer-*.parquet",
    "analyse": "analyse/*/words.parquet",
    "explain": "explain/*/explanations-*.parquet",
    "simulate": "simulate/*/simulations-*.parquet",
    "score": "score/*/scores-*.parquet",
    "report": "report/*/index.html",
}
"""What a stage has finished first, which is when the signal comes."""
LAST = "neuron-atlas: interrupted; what was finished is kept, and the same call goes on from there"


@dataclass
class Story:
    atlas: Atlas
    statuses: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    kept: dict[str, tuple[set[Path], set[Path]]] = field(default_factory=dict)
    last_status: int = -1


@pytest.fixture(scope="module")
def undisturbed(ray_of_two_cores: None, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    out = tmp_path_factory.mktemp("undisturbed")
    small_run(out, *PARTED, data=(SCENES,))
    return Atlas(out)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("signals")
    out = folder / "out"
    told = Story(Atlas(out))
    overrides = (SCENES, *SMALL, *PARTED, f"out={out}")
    for place, (stage, pattern) in enumerate(FINISHED.items()):
        with program(folder / f"{stage}.log", *overrides) as running:
            before = set(below(out, pattern))

            def reached(pattern: str = pattern, before: set[Path] = before) -> bool:
                return bool(set(below(out, pattern)) - before)

            running.run_until(reached)
            at_signal = set(below(out, pattern))
            running.process.send_signal((signal.SIGTERM, signal.SIGINT)[place % 2])
            told.statuses[stage] = running.end()
            told.said[stage] = running.said()
            told.kept[stage] = (at_signal, set(below(out, pattern)))
    with program(folder / "last.log", *overrides) as last:
        told.last_status = last.end()
    return told


@pytest.mark.parametrize("stage", FINISHED)
def test_the_run_ends_with_130_and_says_how_to_go_on(story, stage):
    assert story.statuses[stage] == 130, story.said[stage]
    assert story.said[stage].splitlines()[-1] == LAST
    assert "Traceback" not in story.said[stage]


@pytest.mark.parametrize("stage", ["samples", "describe", "capture", "explain", "simulate"])
def test_what_was_under_way_is_finished_and_nothing_is_lost(story, stage):
    at_signal, kept = story.kept[stage]
    assert at_signal < kept
    assert "stopping   once what is under way has ended" in story.said[stage]


def test_no_shard_is_left_half_written(story):
    assert begun_shards(story.atlas.out) == set()


def test_mlflow_knows_that_they_were_stopped(story):
    _, runs = runs_in(story.atlas.out / "mlflow.db")
    assert [run.info.status for run in runs] == ["KILLED"] * len(FINISHED) + ["FINISHED"]


def test_the_last_call_finishes(story):
    assert story.last_status == 0


@pytest.mark.parametrize("name", SPECS)
def test_the_rows_are_those_of_an_undisturbed_run(story, undisturbed, name):
    assert same(story.atlas.table(name), undisturbed.table(name))


def begin_shard(running: Program, out: Path) -> None:
    """Let it come to the middle of a shard that takes seconds."""
    running.run_until(lambda: "capture    weights" in running.said())
    running.run_until(lambda: not shards(out))


LONG = ("data.count=400", "capture.shards=1", "capture.batch_size=2")


def test_a_first_signal_lets_a_long_shard_finish(tmp_path):
    with program(tmp_path / "log", *LONG, *SMALL, f"out={tmp_path / 'out'}") as running:
        begin_shard(running, tmp_path / "out")
        assert running.terminate() == 130
        assert running.said().splitlines()[-1] == LAST
    assert len(shards(tmp_path / "out")) == 1


def test_control_a_second_signal_stops_at_once_and_the_shard_is_lost(tmp_path):
    with program(tmp_path / "log", *LONG, *SMALL, f"out={tmp_path / 'out'}") as running:
        begin_shard(running, tmp_path / "out")
        running.process.send_signal(signal.SIGINT)
        running.run_until(lambda: "another signal stops at once" in running.said())
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 130
        assert running.said().splitlines()[-1] == LAST
    assert shards(tmp_path / "out") == set()
    _, (run,) = runs_in(tmp_path / "out" / "mlflow.db")
    assert run.info.status == "KILLED"
