"""The benchmark's usual way is an independent capture: both must find the same."""

from __future__ import annotations

import numpy as np
import torch

from bench.baseline import capture_baseline
from bench.capture import capture_all
from bench.subjects import subject_and_samples

_TOP_N = 4


def test_capture_finds_the_exemplars_and_traces_that_the_usual_way_finds() -> None:
    subject, samples = subject_and_samples("bundled", 12, torch.device("cpu"))
    encoded = dict(samples)

    records = capture_all(subject, samples, batch_size=5, top_n=_TOP_N)
    usual = capture_baseline(subject, samples, top_n=_TOP_N)

    found = {}
    for layer, record in records.items():
        for neuron, slots in enumerate(record.slot_samples().tolist()):
            for slot, sample_id in enumerate(slots):
                trace = record.traces[neuron, slot].numpy()
                text = record.layout.visual + encoded[sample_id].n_text
                found[layer, neuron, sample_id] = trace[:text]
    assert found.keys() == usual.keys()
    for key, trace in usual.items():
        np.testing.assert_allclose(found[key], trace, rtol=1e-3, atol=1e-4)
