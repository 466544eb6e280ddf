"""Collect traces in a later pass, after the first pass ranked the samples."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.top_n import Entries
from neuron_atlas.tasks.capture.traces import store_random_traces, store_traces
from neuron_atlas.tasks.subject.batches import Batch


def replay(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Write the traces of a batch's samples into their slots, which the first pass decided.

    activations: [batch, tokens, neurons].
    """
    assert record.traces is not None
    sample, neuron, slot = (
        (batch.sample_ids[:, None, None] == record.slot_samples()).nonzero().unbind(1)
    )
    store_traces(record.traces, record.layout, Entries(neuron, slot, sample), activations, batch)
    store_random_traces(record, activations, batch)
