"""Traces: cut out of a batch's activations, written into a record's buffers."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.capture.batch import Batch
from neuron_atlas.tasks.capture.record import EVIDENCE, LayerRecord, Layout
from neuron_atlas.tasks.capture.top_n import Entries

FLOAT16_MAX = torch.finfo(torch.float16).max
"""An activation beyond float16 is kept as its largest number, where infinity would spoil every
sum that it enters."""


def keep_traces(
    traces: torch.Tensor,
    layout: Layout,
    entered: Entries,
    activations: torch.Tensor,
    batch: Batch,
) -> None:
    """Write the traces of the samples of a batch that entered a record into float16 `traces`
    [neurons, N, layout.tokens], wherever those are."""
    if entered.neuron.numel() == 0:
        return
    token = trace_tokens(batch.roles, layout)[entered.sample]
    trace = activations[entered.sample[:, None], token, entered.neuron[:, None]]
    home = traces.device
    traces[entered.neuron.to(home), entered.slot.to(home)] = as_stored(trace).to(home)


def keep_random_traces(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Write the traces of those of a batch's samples that the dataset's random ones are."""
    assert record.random_traces is not None
    rows = [row for row, sample in enumerate(batch.ids) if sample in record.random_slots]
    if not rows:
        return
    slots = [record.random_slots[batch.ids[row]] for row in rows]
    token = trace_tokens(batch.roles[rows], record.layout)
    trace = torch.take_along_dim(activations[rows], token[:, :, None], 1).permute(2, 0, 1)
    record.random_traces[:, slots] = as_stored(trace).to(record.random_traces.device)


def as_stored(values: torch.Tensor) -> torch.Tensor:
    """Activations in the number format of traces."""
    return values.clamp(-FLOAT16_MAX, FLOAT16_MAX).half()


def trace_tokens(roles: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The token int64 [batch, layout.tokens] at each place of the layout, 0 where there is none:
    what is written there is never read."""
    tokens = []
    for role, room in zip(EVIDENCE, (layout.visual, layout.text), strict=True):
        of_role = roles == role
        # A stable sort of the inverted mask lists the role's tokens first, in their order.
        order = (~of_role).to(torch.int8).sort(dim=1, stable=True).indices[:, :room]
        tokens.append(torch.nn.functional.pad(order, (0, room - order.shape[1])))
    return torch.cat(tokens, 1)
