"""Killed twice, stopped once, and called again: the same rows in the end, nothing done twice."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

import pyarrow as pa
import pytest

from tests.workflows.programs import program
from tests.workflows.runs import SMALL, SPECS, Atlas, runs_in

SCENES = "data.count=120"
SHARDS = 12
PARTED = (
    "capture.layers=[1]",
    f"capture.shards={SHARDS}",
    "explain.neurons.per_layer_and_type=5",
    "explain.neurons_per_task=1",
)
OUR_LINES = re.compile(
    r"$|(samples|describe|capture|merge|classify|analyse|evidence|gather|explain|near miss|"
    r"near_misses|image_clusters|search|simulate|score|report) +"
    r"(already done \(|weights |\d[\d,]*/\d)|"
    r"(neurons|scores|measures|failures|seconds|page|artifacts|mlflow)  +|"
    r"(samples|describe|capture|subject|cluster|mlflow) +waiting for .+, \d+ s so far$"
)


@dataclass
class Story:
    """What was seen along the way."""

    atlas: Atlas
    said: list[str] = field(default_factory=list)
    finished_shards: set[str] = field(default_factory=set)
    begun_shards_later: set[str] = field(default_factory=set)
    explained_before: dict[Path, int] = field(default_factory=dict)
    status_of_sigterm: int = -1
    last_status: int = -1


def below(out: Path, pattern: str) -> list[Path]:
    """As Path.glob, which fails where a folder disappears meanwhile."""
    return [Path(name) for name in glob(f"{out}/artifacts/{pattern}")]


def shards(out: Path) -> set[str]:
    return {path.name for path in below(out, "capture/*/shards/shard-*")}


def begun_shards(out: Path) -> set[str]:
    return {
        re.sub(r"^\.|\.\d+\.tmp$", "", path.name)
        for path in below(out, "capture/*/shards/.shard-*.tmp")
    }


def parts(out: Path, artifact: str) -> dict[Path, int]:
    """The finished parts of an artifact, and when each was written."""
    found = below(out, f"*/*/{artifact}-layer-*.parquet")
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    folder = tmp_path_factory.mktemp("undisturbed")
    out = folder / "out"
    with program(folder / "log", SCENES, *SMALL, *PARTED, f"out={out}") as once:
        assert once.end() == 0, once.said()
    return Atlas(out)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("disturbed")
    out = folder / "out"
    told = Story(Atlas(out))
    overrides = (SCENES, *SMALL, *PARTED, f"out={out}")

    with program(folder / "1.log", *overrides) as first:
        first.run_until(lambda: len(shards(out)) >= 2)
        first.kill()
        told.finished_shards = shards(out)
        told.said.append(first.said())

    def explaining() -> bool:
        told.begun_shards_later |= begun_shards(out)
        return len(parts(out, "explanations")) >= 3

    with program(folder / "2.log", *overrides) as second:
        second.run_until(explaining)
        second.kill()
        told.explained_before = parts(out, "explanations")
        told.said.append(second.said())

    with program(folder / "3.log", *overrides) as third:
        third.run_until(lambda: len(parts(out, "simulations")) >= 1)
        told.status_of_sigterm = third.terminate_group()
        told.said.append(third.said())

    with program(folder / "4.log", *overrides) as fourth:
        told.last_status = fourth.end()
        told.said.append(fourth.said())
    return told


def test_every_disturbance_came_in_the_middle_of_its_stage(story):
    assert 2 <= len(story.finished_shards) < SHARDS
    explained = story.atlas.manifest["artifacts"]["explanations"]["rows"]
    assert 3 <= len(story.explained_before) < explained


def test_the_last_call_finishes(story):
    assert story.last_status == 0, story.said[-1]


@pytest.mark.parametrize("name", SPECS)
def test_the_rows_are_those_of_an_undisturbed_run(story, undisturbed, name):
    assert same(story.atlas.table(name), undisturbed.table(name))


def test_a_shard_that_was_finished_is_not_captured_again(story):
    samples = len(story.finished_shards) * 120 // SHARDS
    assert f"capture    {samples}/120 samples were done before" in story.said[1]
    assert story.begun_shards_later
    assert not story.begun_shards_later & story.finished_shards


def test_a_neuron_that_was_explained_is_not_explained_again(story):
    count = len(story.explained_before)
    after = parts(story.atlas.out, "explanations")
    assert {path: after[path] for path in story.explained_before} == story.explained_before
    rows = story.atlas.manifest["artifacts"]["explanations"]["rows"]
    assert f"explain    {count}/{rows} neurons were done before" in story.said[2]


def test_stages_that_were_complete_are_skipped(story):
    for stage in ("samples", "describe"):
        assert f"{stage:<10} already done" in story.said[1]
    for stage in ("samples", "describe", "capture", "classify", "analyse", "evidence", "explain"):
        assert f"{stage:<10} already done" in story.said[3]


def test_sigterm_ends_a_run_with_status_130_and_a_line_that_says_how_to_go_on(story):
    assert story.status_of_sigterm == 130
    *_, last = story.said[2].splitlines()
    assert last == (
        "neuron-atlas: interrupted; finished work is kept, and the same command goes on from there"
    )


def test_mlflow_knows_which_calls_ended_and_how(story):
    _, runs = runs_in(story.atlas.out / "mlflow.db")
    assert [run.info.status for run in runs[-2:]] == ["KILLED", "FINISHED"]


def test_a_person_at_the_terminal_sees_the_programs_own_lines_only(story):
    for said in (story.said[0], story.said[1], story.said[3]):
        strange = [line for line in said.splitlines() if not OUR_LINES.match(line)]
        assert strange == []


def test_nothing_half_written_is_taken_for_a_file_of_the_atlas(story):
    named = {
        story.atlas.out / file
        for artifact in story.atlas.manifest["artifacts"].values()
        for file in artifact["files"]
    }
    assert all(path.is_file() for path in named)
    assert not [path for path in named if ".tmp" in path.name]


def same(mine: pa.Table, theirs: pa.Table) -> bool:
    """Whether all rows are equal to the last bit, and NaN where NaN is."""
    return mine.equals(theirs) or repr(mine.to_pydict()) == repr(theirs.to_pydict())
