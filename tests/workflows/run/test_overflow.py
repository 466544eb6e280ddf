"""Activations that overflow are counted by layer, and past a limit they end the run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import MOMENTS, layer_file, write_table
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import RunError
from neuron_atlas.workflows.run.overflow import check_overflow
from neuron_atlas.workflows.run.store import Manifest, Store
from neuron_atlas.workflows.stages import capture
from tests.workflows.runs import settings


def captured(folder: Path, nonfinite: int, *overrides: str) -> Context:
    """A capture of two layers with 1,000 activations each, of which the second has some that
    overflowed."""
    done = Manifest(
        *("capture", 1, "f" * 64, {}, {}),
        *({}, {}, {}),
        about={"layers": [0, 1]},
    )
    context = Context(
        settings("subject.dtype=float16", *overrides), Store(folder), {"capture": done}
    )
    for layer, lost in ((0, 0), (1, nonfinite)):
        row = {field.name: 0 for field in MOMENTS.schema} | {"layer": layer}
        row |= {"n_visual": 900 - lost, "nonfinite_visual": lost, "n_text": 100}
        table = pa.Table.from_pylist([row], schema=MOMENTS.schema)
        write_table(table, MOMENTS, context.folder("capture") / layer_file("moments", layer))
    return context


def test_a_layer_with_some_is_shown(tmp_path, capsys):
    capture.STAGE.check(captured(tmp_path, 1))
    assert capsys.readouterr().err == (
        "capture    layer 1: 1 of 1,000 visual and text activations (0.100%) are infinite or NaN, "
        "and count nowhere\n"
    )


def test_past_the_limit_the_run_fails_and_names_the_layer_and_a_wider_format(tmp_path):
    with pytest.raises(RunError) as caught:
        capture.STAGE.check(captured(tmp_path, 300))
    assert str(caught.value) == (
        "too many activations are infinite or NaN (30.0% of layer 1), and "
        "capture.max_nonfinite_share is 0.10%; they overflow float16: set subject.dtype=bfloat16, "
        "or float32, or raise this limit"
    )


def test_the_limit_is_a_setting(tmp_path):
    capture.STAGE.check(captured(tmp_path, 300, "capture.max_nonfinite_share=0.3"))


def test_without_any_nothing_is_said(tmp_path, capsys):
    capture.STAGE.check(captured(tmp_path, 0))
    assert capsys.readouterr().err == ""


def test_a_wide_format_has_another_remedy():
    with pytest.raises(RunError, match="check the weights"):
        check_overflow({0: 1.0}, CaptureSettings(), "bfloat16")
