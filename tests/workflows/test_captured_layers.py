"""Layers that were captured are there for every run that wants some of them."""

from __future__ import annotations

import pytest

from neuron_atlas.workflows.atlas import run_through_capture
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.run.context import Context
from tests.workflows.runs import SCENES, SMALL, composed


def captured(first_run: Context, *overrides: str) -> Context:
    config = composed(SCENES, *SMALL, *overrides) | {"out": str(first_run.store.out)}
    return run_through_capture(read_settings(config))


def test_a_run_of_fewer_layers_finds_them_captured(first_run):
    fewer = captured(first_run, "capture.layers=[3]")
    assert fewer.stats.skipped == ["samples", "describe", "image_clusters", "capture"]
    assert fewer.layers() == (3,)
    (ranked,) = fewer.paths("capture", "exemplars")
    assert ranked in first_run.paths("capture", "exemplars")
    rows, before = fewer.done["capture"].rows, first_run.done["capture"].rows
    assert rows["moments"] == before["moments"] / 2 == 512


def test_what_comes_after_is_made_from_the_layers_that_were_asked_for(first_run):
    fewer = captured(first_run, "capture.layers=[3]")
    same = captured(first_run, "capture.layers=[3,1]")
    assert fewer.identity("capture") != first_run.identity("capture")
    assert same.identity("capture") == first_run.identity("capture")


@pytest.mark.slow
def test_a_layer_that_is_not_there_is_added_and_the_others_stay(first_run, capsys):
    before = {path: path.stat().st_mtime_ns for path in first_run.paths("capture", "exemplars")}
    more = captured(first_run, "capture.layers=[1,2]")
    assert "capture    adds layers 2 to 1, 3" in capsys.readouterr().err
    assert more.layers() == (1, 2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    everything = captured(first_run, "capture.layers=[1,2,3]")
    assert everything.stats.skipped == ["samples", "describe", "image_clusters", "capture"]
    assert captured(first_run).layers() == (1, 3)
