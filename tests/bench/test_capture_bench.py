"""The benchmark's usual way is an independent capture: both must find the same."""

from __future__ import annotations

import numpy as np

from bench.capture import BUNDLED, capture_all, scene_samples, usual_way
from tasks.capture.top_n import unpack
from tasks.subject.load import load_subject
from tasks.subject.settings import SubjectSettings

_TOP_N = 4


def test_capture_finds_the_exemplars_and_traces_that_the_usual_way_finds() -> None:
    subject = load_subject(SubjectSettings(model=str(BUNDLED)))
    samples = scene_samples(subject, 12)
    encoded = dict(samples)

    recorders = capture_all(subject, samples, batch_size=5, top_n=_TOP_N)
    usual = usual_way(subject, samples, top_n=_TOP_N)

    found = {}
    for layer, recorder in recorders.items():
        _, sample_ids = unpack(recorder.keys)
        for neuron, slots in enumerate(sample_ids.tolist()):
            for slot, sample_id in enumerate(slots):
                trace = recorder.traces[neuron, slot].numpy()
                text = recorder.layout.visual + encoded[sample_id].n_text
                found[layer, neuron, sample_id] = trace[:text]
    assert found.keys() == usual.keys()
    for key, trace in usual.items():
        np.testing.assert_allclose(found[key], trace, rtol=1e-3, atol=1e-4)
