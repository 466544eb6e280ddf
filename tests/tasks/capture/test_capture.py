"""The stream of batches through a subject, whatever its number format and wherever it lies."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from neuron_atlas.tasks.capture.capture import RecordSpec, capture
from neuron_atlas.tasks.capture.memory_plan import Demand, MemoryPlan, Pass
from neuron_atlas.tasks.capture.record import Layout
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import batches
from neuron_atlas.tasks.subject.encode import TEMPLATE, encode
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


ONE_PASS = (Pass(LAYERS, ()),)
BATCH_SIZE = 3


def captured(subject, samples, hook_point="gate", kept=ONE_PASS):
    layout = Layout(64, max(encoded.n_text for _, encoded in samples))
    recording = RecordSpec(LAYERS, hook_point, 4, layout, [samples[2][0]])
    plan = MemoryPlan(kept, Demand(0, 0, 0, {}), BATCH_SIZE)
    return dict(capture(subject, lambda: iter(samples), recording, plan))


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
def test_peaks_and_traces_are_the_hooked_activations(subject_folder, dtype, hook_point):
    subject = load_subject(SubjectSettings(model=str(subject_folder), dtype=dtype), threads=1)
    samples = encoded_scenes(subject)
    for layer, record in captured(subject, samples, hook_point).items():
        values = hooked_activations(subject, samples, layer, hook_point)
        peaks = np.stack([values[sample_id].max(0) for sample_id in sorted(values)], 1)
        best = np.argsort(-peaks, axis=1, kind="stable")[:, :4]
        for neuron in range(0, 512, 31):
            assert set(record.slot_samples()[neuron].tolist()) == set(best[neuron].tolist())
            for slot, sample_id in enumerate(record.slot_samples()[neuron].tolist()):
                trace = record.traces[neuron, slot, : len(values[sample_id])].float().numpy()
                np.testing.assert_allclose(
                    trace, values[sample_id][:, neuron], atol=2e-3, rtol=1e-3
                )


def test_layers_come_in_the_order_of_the_passes_each_with_its_traces(subject):
    samples = encoded_scenes(subject)
    whole = captured(subject, samples)
    parts = captured(subject, samples, kept=(Pass((), (1,)), Pass((3,), ())))
    assert list(parts) == [1, 3]
    lengths = torch.tensor([encoded.n_text + encoded.n_visual for _, encoded in samples])
    for layer, record in parts.items():
        assert torch.equal(record.keys, whole[layer].keys)
        real = torch.arange(record.layout.tokens) < lengths[record.slot_samples()][:, :, None]
        assert torch.equal(record.traces[real], whole[layer].traces[real])


def test_a_subject_that_is_spread_over_devices_is_captured_too(subject, subject_folder):
    spread = load_subject(replace(subject.settings, model=str(subject_folder)), "auto", threads=1)
    samples = encoded_scenes(subject)
    expected = captured(subject, samples)
    for layer, record in captured(spread, samples).items():
        assert torch.equal(record.keys, expected[layer].keys)
