"""Neurons of the vision tower and of the projector, at the visual tokens of their patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from neuron_atlas.tasks.artifacts import exemplars_spec, layer_file, read_table
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.concepts.presence import patch_coverage
from neuron_atlas.tasks.effects.intervention import Intervention, InterventionError, intervening
from neuron_atlas.tasks.samples.scenes import COLORS
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import VISUAL, encode
from neuron_atlas.tasks.subject.hook_points import (
    check_layers,
    layers_of,
    neurons_per_layer,
    observing,
)
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import SubjectError
from tests.one_process import Described, capture, classify

LAYER, TOP_N = 1, 8
RED, GREEN = Image.new("RGB", (64, 64), (210, 30, 30)), Image.new("RGB", (90, 60), (10, 200, 30))


def seen_by_hand(subject: Subject, hook_point: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What is observed of samples of no, one and two images, and what the module reads."""
    samples = [encode(subject, images, "Here.") for images in ([RED], [], [GREEN, RED])]
    tower = subject.body.vision_tower
    module = (
        tower.encoder.layers[LAYER].mlp.fc2
        if hook_point == "vision"
        else subject.body.multi_modal_projector.linear_2
    )
    read: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    seen: list[torch.Tensor] = []
    length = max(len(one.input_ids) for one in samples)
    layer = LAYER if hook_point == "vision" else 0
    with (
        observing(subject, [layer], hook_point, lambda _, values: seen.append(values)),
        torch.inference_mode(),
    ):
        forward_body(subject, batch_inputs(samples, length))
    handle.remove()
    roles = torch.full((len(samples), length), -1)
    for row, one in enumerate(samples):
        roles[row, : len(one.roles)] = one.roles
    assert neurons_per_layer(subject, hook_point, [layer]) == read[0].shape[-1]
    (values,) = seen
    assert not values[roles != VISUAL].any()
    return values[roles == VISUAL], read[0]


def test_a_patch_of_the_tower_is_at_its_visual_token_without_the_class_token(subject):
    seen, read = seen_by_hand(subject, "vision")
    assert read.shape[:2] == (3, 65)
    torch.testing.assert_close(seen, read[:, 1:].flatten(0, 1), rtol=0, atol=0)


def test_the_hidden_layer_of_the_projector_is_at_the_visual_tokens(subject):
    seen, read = seen_by_hand(subject, "projector")
    torch.testing.assert_close(seen, read.flatten(0, 1), rtol=0, atol=0)


def test_a_sample_without_images_is_zero_at_all_tokens(subject):
    encoded = encode(subject, [], "A cat.")
    seen: list[torch.Tensor] = []
    with observing(subject, [0], "vision", lambda _, values: seen.append(values)):
        forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
    assert seen[0].shape[:2] == (1, len(encoded.input_ids))
    assert not seen[0].any()


def test_layers_after_the_one_that_is_selected_are_refused(subject, monkeypatch):
    assert len(layers_of(subject, "vision")) == 3
    assert len(layers_of(subject, "projector")) == 1
    for selected, used in ((-2, 2), (1, 1), ([-3, -2], 2)):
        monkeypatch.setattr(subject.model.config, "vision_feature_layer", selected)
        assert len(layers_of(subject, "vision")) == used
        with pytest.raises(SubjectError, match=rf"no layer {used};.* 0 to {used - 1} that its im"):
            check_layers(subject, [used], "vision")


def test_patches_that_are_not_the_visual_tokens_are_refused(subject, monkeypatch):
    encoded = encode(subject, [RED], "A cat.")
    monkeypatch.setitem(vars(subject), "image_token_id", int(encoded.input_ids[-1]))
    with (
        pytest.raises(
            SubjectError, match=r"shape \(1, 65, 384\), and 1 visual tokens; only a tower"
        ),
        observing(subject, [0], "vision", lambda *_: None),
    ):
        forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))


def test_its_neurons_cannot_be_changed(subject):
    change = Intervention(0, (1,), "set", 0.0)
    with (
        pytest.raises(InterventionError, match="'vision' are read, and cannot be changed"),
        intervening(subject, [change], "vision"),
    ):
        pass


@pytest.fixture(scope="module")
def shapes(scenes: Described) -> dict[int, np.ndarray]:
    """Whether each patch of a scene shows a shape."""
    catalog = scenes.catalog()
    return {
        number: np.max(
            [
                patch_coverage(truth, sample)
                for truth in catalog.concepts(number)
                if truth.name in COLORS
            ],
            axis=0,
        )
        > 0.2
        for number, sample in catalog.samples.items()
    }


@pytest.fixture
def planted(subject, scenes, shapes, monkeypatch) -> dict[str, int]:
    """Neurons that fire on the patches of shapes, and never: linear probes in the tower."""
    catalog, mlp = scenes.catalog(), subject.body.vision_tower.encoder.layers[LAYER].mlp
    read: list[torch.Tensor] = []
    handle = mlp.fc1.register_forward_pre_hook(lambda _, args: read.append(args[0][0, 1:]))
    with torch.inference_mode():
        for number, sample in catalog.samples.items():
            encoded = encode(subject, catalog.open_images(number), sample.text)
            forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
    handle.remove()
    patches = torch.cat(read).double()
    design = torch.cat([patches, patches.new_ones(len(patches), 1)], 1)
    is_shape = torch.from_numpy(np.concatenate([shapes[number] for number in catalog.samples]))
    aims = torch.where(is_shape, 4.0, -2.0).double()
    probe = torch.linalg.lstsq(design, aims[:, None]).solution[:, 0].float()
    weight, bias = mlp.fc1.weight.detach().clone(), mlp.fc1.bias.detach().clone()
    weight[5], bias[5] = probe[:-1], probe[-1]
    weight[6], bias[6] = 0, -6
    monkeypatch.setattr(mlp.fc1.weight, "data", weight)
    monkeypatch.setattr(mlp.fc1.bias, "data", bias)
    return {"shapes": 5, "never": 6}


def test_a_planted_neuron_of_the_tower_is_visual_and_peaks_on_its_patches(
    subject, scenes, shapes, planted, tmp_path
):
    settings = CaptureSettings(
        layers=(LAYER,), hook_point="vision", peak_roles=("visual",), top_n=TOP_N
    )
    captured = capture(subject, scenes, [LAYER], settings, tmp_path / "captured")
    types = classify(captured, LAYER, PaperRule()).to_pylist()
    assert types[planted["shapes"]]["type"] == "visual"
    assert types[planted["never"]]["type"] == "unknown"
    assert {row["type"] for row in types} <= {"visual", "unknown"}
    path = captured / layer_file("exemplars", LAYER)
    row = read_table(path, exemplars_spec(TOP_N)).to_pylist()[planted["shapes"]]
    assert set(row["peak_role"]) == {0}
    assert all(
        shapes[number][token]
        for number, token in zip(row["sample_id"], row["peak_token"], strict=True)
    )
