"""The stream of batches through a subject, whatever its number format and wherever it lies."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuron_atlas.tasks.capture.capture import RecordSpec, capture
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.encode import TEMPLATE, TEXT, encode
from neuron_atlas.tasks.subject.hook_points import observing
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings

LAYERS = (3, 1)


def encoded_scenes(subject, count=10):
    scenes = Scenes(count=count, seed=12)
    return [
        (number, encode(subject, [scenes.open_image(record.images[0]).pixels], record.text))
        for number, record in enumerate(scenes.records())
    ]


BATCH_SIZE = 3


def captured(subject, samples, hook_point="gate"):
    recording = RecordSpec(LAYERS, hook_point, 4)
    return capture(subject, lambda: iter(samples), recording, BATCH_SIZE)


def hooked_activations(subject, samples, layer, hook_point):
    """By sample_id, activations float32 [tokens, neurons] at the visual and text tokens."""
    roles = {sample_id: encoded.roles for sample_id, encoded in samples}
    seen = []
    with (
        torch.inference_mode(),
        observing(subject, [layer], hook_point, lambda _, values: seen.append(values)),
    ):
        streamed = list(batches(samples, BATCH_SIZE))
        for batch in streamed:
            forward_body(subject, batch.inputs)
    found = {
        sample_id: row
        for batch, values in zip(streamed, seen, strict=True)
        for sample_id, row in zip(batch.ids, values, strict=True)
    }
    return {
        sample_id: found[sample_id][: len(mine)][mine != TEMPLATE].float().numpy()
        for sample_id, mine in roles.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("hook_point", ["gate", "gate_up"])
def test_peaks_and_highest_activations_are_the_hooked_ones(subject_folder, dtype, hook_point):
    subject = load_subject(SubjectSettings(model=str(subject_folder), dtype=dtype), threads=1)
    samples = encoded_scenes(subject)
    roles = {sample_id: one.roles[one.roles != TEMPLATE].numpy() for sample_id, one in samples}
    for layer, record in captured(subject, samples, hook_point).items():
        values = hooked_activations(subject, samples, layer, hook_point)
        peaks = np.stack([values[sample_id].max(0) for sample_id in sorted(values)], 1)
        best = np.argsort(-peaks, axis=1, kind="stable")[:, :4]
        for neuron in range(0, 512, 31):
            assert set(record.slot_samples()[neuron].tolist()) == set(best[neuron].tolist())
            for slot, sample_id in enumerate(record.slot_samples()[neuron].tolist()):
                is_text = roles[sample_id] == TEXT
                for role, mine in ((0, ~is_text), (1, is_text)):
                    highest = np.sort(values[sample_id][mine, neuron])[::-1][:8]
                    top = record.slots.top[role, neuron, slot, : len(highest)].numpy()
                    np.testing.assert_array_equal(top, highest)


def test_every_layer_is_recorded(subject):
    assert sorted(captured(subject, encoded_scenes(subject))) == sorted(LAYERS)


def test_a_subject_that_is_spread_over_devices_is_captured_too(subject, subject_folder):
    spread = load_subject(replace(subject.settings, model=str(subject_folder)), "auto", threads=1)
    samples = encoded_scenes(subject)
    expected = captured(subject, samples)
    for layer, record in captured(spread, samples).items():
        assert torch.equal(record.keys, expected[layer].keys)
