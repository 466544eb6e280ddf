"""Workers, nodes and drivers that are killed: `make test-slow ONLY=faults`."""

from __future__ import annotations

import re

import pytest

from tests.infra.clusters import running
from tests.workflows.faults.faults import (
    MOMENTS,
    atlas,
    kill_node,
    kill_worker,
    parts,
    three_nodes,
    wait_for_the_middle,
)
from tests.workflows.runs import Atlas

pytestmark = pytest.mark.faults
KILLS = {"worker": kill_worker, "node": kill_node}


@pytest.mark.parametrize("stage", MOMENTS)
@pytest.mark.parametrize("victim", KILLS)
def test_a_run_survives_the_death_of(victim, stage, tmp_path, strange_tables):
    out = tmp_path / "out"
    with (
        three_nodes(tmp_path) as nodes,
        running(atlas(out), tmp_path / "log", **nodes.environment) as run,
    ):
        wait_for_the_middle(run, out, stage)
        KILLS[victim](nodes, stage)
        assert run.end() == 0, run.said()
    assert strange_tables(out) == []
    assert Atlas(out).manifest["nodes"][stage] >= 2


@pytest.mark.parametrize("stage", MOMENTS)
@pytest.mark.parametrize("victim", KILLS)
def test_without_retries_it_is_the_end_of_a_run(victim, stage, tmp_path):
    out = tmp_path / "out"
    with (
        three_nodes(tmp_path) as nodes,
        running(atlas(out, without="retries"), tmp_path / "log", **nodes.environment) as run,
    ):
        wait_for_the_middle(run, out, stage)
        KILLS[victim](nodes, stage)
        assert run.end() == 1, run.said()
        assert "Ray could not finish the work" in run.said()


def killed_and_called_again(tmp_path, stage: str, without: str = "") -> tuple[set[str], int, str]:
    """A driver killed in the middle of a stage, and called again: the parts that were finished
    before, how many of them are as they were, and what the second call said."""
    out = tmp_path / "out"
    with three_nodes(tmp_path) as nodes:
        with running(atlas(out), tmp_path / "1.log", **nodes.environment) as first:
            wait_for_the_middle(first, out, stage)
            first.process.kill()
            first.process.wait()
        before = {path.name: path.stat().st_mtime_ns for path in parts(out, stage)}
        command = atlas(out, without=without)
        with running(command, tmp_path / "2.log", **nodes.environment) as second:
            assert second.end() == 0, second.said()
            said = second.said()
    after = {path.name: path.stat().st_mtime_ns for path in parts(out, stage)}
    return set(before), sum(before[name] == after.get(name) for name in before), said


def test_a_driver_that_is_killed_goes_on_when_it_is_called_again(tmp_path, strange_tables):
    before, kept, said = killed_and_called_again(tmp_path, "explain")
    assert kept == len(before) >= 2
    assert "capture    already done" in said
    assert re.search(r"explain    \d+/\d+ neurons were done before", said)
    assert strange_tables(tmp_path / "out") == []


def test_without_what_was_kept_it_would_begin_again(tmp_path):
    before, kept, said = killed_and_called_again(tmp_path, "explain", without="resume")
    assert len(before) >= 2
    assert kept == 0
    assert "already done" not in said
    assert "were done before" not in said
