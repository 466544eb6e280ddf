"""A layer whose activations overflow float16 is found, on a small image and in what is captured."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuron_atlas.tasks.artifacts import layer_file
from neuron_atlas.tasks.artifacts.nonfinite import count_nonfinite, nonfinite_outcomes
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.probe import nonfinite_shares
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings
from tests.families.building import build
from tests.families.instances import BUILDS
from tests.families.pictures import Pictures
from tests.one_process import capture, describe


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 whose first FFN is 2,000 times as strong."""
    folder = build(BUILDS["gemma3"], tmp_path_factory.mktemp("loud"))
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if "layers.0.mlp.gate_proj" in name or "layers.0.mlp.up_proj" in name:
            weight *= 2000
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_layer_after_an_overflow_in_float16_is_counted_whole(loud, tmp_path):
    subject = load_subject(SubjectSettings(model=str(loud), dtype="float16"))
    shares = nonfinite_shares(subject, [0, 1], "gate")
    assert shares[1] == 1.0
    described = describe(subject, Pictures(), tmp_path, DescribeSettings(text_source="given"))
    folder = capture(subject, described, [0, 1], CaptureSettings(top_n=3), tmp_path / "captured")
    paths = [folder / layer_file("moments", layer) for layer in (0, 1)]
    (_, total), (nonfinite, same) = map(count_nonfinite, paths)
    assert nonfinite == total == same > 0
    outcomes = nonfinite_outcomes([(1, [paths[1]])]).to_pylist()
    assert outcomes[0] == {
        "status": "nonfinite", "reason": "layer 1: infinite or NaN", "count": total
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_wider_format_does_not_overflow(loud, dtype):
    subject = load_subject(SubjectSettings(model=str(loud), dtype=dtype))
    assert subject.model.dtype == getattr(torch, dtype)
    assert nonfinite_shares(subject, [0, 1], "gate") == {0: 0.0, 1: 0.0}
