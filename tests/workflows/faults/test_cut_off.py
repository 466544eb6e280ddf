"""A node that is cut off from the network and comes back: `make test-with NEEDS=netns`."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.infra.clusters import named, running
from tests.workflows.faults.faults import atlas, wait_for_the_middle
from tests.workflows.faults.two_hosts import two_hosts
from tests.workflows.runs import Atlas

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces want root"),
    pytest.mark.skipif(shutil.which("ip") is None, reason="no ip here: apt-get install iproute2"),
]
TWO = ("cluster.actors=2",)
_UNTIL_GIVEN_UP_S = 10.0
"""By the settings of `QUICK`, with room; that it was given up shows in its being begun again."""


def test_a_cut_that_is_soon_mended_is_not_noticed(tmp_path, strange_tables):
    out = tmp_path / "out"
    with two_hosts(tmp_path) as hosts:
        command = hosts.on_the_head(atlas(out, *TWO))
        with running(command, tmp_path / "log", **hosts.environment) as run:
            wait_for_the_middle(run, out, "capture")
            hosts.cut_off()
            time.sleep(1.0)
            hosts.join_again()
            assert run.end() == 0, run.said()
        assert hosts.nodes_begun() == 1
    assert strange_tables(out) == []
    assert Atlas(out).manifest["nodes"]["capture"] == 2


def test_a_node_that_was_given_up_and_comes_back_works_again(tmp_path, strange_tables):
    out = tmp_path / "out"
    with two_hosts(tmp_path) as hosts:
        command = hosts.on_the_head(atlas(out, *TWO))
        with running(command, tmp_path / "log", **hosts.environment) as run:
            wait_for_the_middle(run, out, "capture")
            hosts.cut_off()
            time.sleep(_UNTIL_GIVEN_UP_S)
            hosts.join_again()
            # It finds that the others have given it up, ends, and is begun again.
            run.run_until(lambda: hosts.nodes_begun() >= 2)
            assert run.end() == 0, run.said()
    assert strange_tables(out) == []
    nodes = Atlas(out).manifest["nodes"]
    assert {nodes[stage] for stage in ("explain", "simulate", "score")} == {2}


def test_a_node_that_stays_away_is_done_without(tmp_path, strange_tables):
    out = tmp_path / "out"
    with two_hosts(tmp_path) as hosts:
        command = hosts.on_the_head(atlas(out, *TWO))
        with running(command, tmp_path / "log", **hosts.environment) as run:
            wait_for_the_middle(run, out, "capture")
            assert named(hosts.worker.processes(), "ray::PoolActor")
            hosts.cut_off()
            assert run.end() == 0, run.said()
    assert strange_tables(out) == []
    nodes = Atlas(out).manifest["nodes"]
    assert (nodes["describe"], nodes["score"]) == (2, 1)


def test_without_retries_it_is_the_end_of_a_run(tmp_path):
    out = tmp_path / "out"
    with two_hosts(tmp_path) as hosts:
        command = hosts.on_the_head(atlas(out, *TWO, without="retries"))
        with running(command, tmp_path / "log", **hosts.environment) as run:
            wait_for_the_middle(run, out, "capture")
            hosts.cut_off()
            assert run.end() == 1, run.said()
            assert "Ray could not finish the work" in run.said()
