"""A later pass over the samples, for the traces of what the first pass ranked."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.capture.batch import Batch
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.top_n import Entries
from neuron_atlas.tasks.capture.traces import keep_random_traces, keep_traces


def replay(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Write the traces of a batch's samples into the slots that the first pass gave them."""
    assert record.traces is not None
    sample, neuron, slot = (
        (batch.sample_ids[:, None, None] == record.slot_samples()).nonzero().unbind(1)
    )
    keep_traces(record.traces, record.layout, Entries(neuron, slot, sample), activations, batch)
    keep_random_traces(record, activations, batch)
