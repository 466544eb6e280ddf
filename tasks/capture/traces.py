"""Copy traces from a batch's activations into a record's buffers."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.capture.record import EVIDENCE, LayerRecord, Layout
from neuron_atlas.tasks.capture.top_n import Entries
from neuron_atlas.tasks.subject.batches import Batch

FLOAT16_MAX = torch.finfo(torch.float16).max
"""Activations beyond the float16 range are clipped to this; infinity would spoil every sum."""


def store_traces(
    traces: torch.Tensor,
    layout: Layout,
    entered: Entries,
    activations: torch.Tensor,
    batch: Batch,
) -> None:
    """Write the traces of the samples that entered a record.

    traces: float16 [neurons, N, layout.tokens], on any device. activations: [batch, tokens,
    neurons].
    """
    if entered.neuron.numel() == 0:
        return
    token = layout_tokens(batch.roles, layout)[entered.sample]
    trace = activations[entered.sample[:, None], token, entered.neuron[:, None]]
    device = traces.device
    traces[entered.neuron.to(device), entered.slot.to(device)] = clip_to_float16(trace).to(device)


def store_random_traces(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Write the traces of the batch's random samples. activations: [batch, tokens, neurons]."""
    assert record.random_traces is not None
    rows = [row for row, sample in enumerate(batch.ids) if sample in record.random_slots]
    if not rows:
        return
    slots = [record.random_slots[batch.ids[row]] for row in rows]
    token = layout_tokens(batch.roles[rows], record.layout)
    trace = torch.take_along_dim(activations[rows], token[:, :, None], 1).permute(2, 0, 1)
    record.random_traces[:, slots] = clip_to_float16(trace).to(record.random_traces.device)


def clip_to_float16(values: torch.Tensor) -> torch.Tensor:
    """Return activations in the number format of traces: float16, clipped to its range."""
    return values.clamp(-FLOAT16_MAX, FLOAT16_MAX).half()


def layout_tokens(roles: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return the token at each position of the layout: int64 [batch, layout.tokens]. Positions
    without a token have an arbitrary index; their values are never read."""
    tokens = []
    for role, width in zip(EVIDENCE, (layout.visual, layout.text), strict=True):
        is_role = roles == role
        # A stable sort of the inverted mask lists the role's tokens first, in their order.
        order = (~is_role).to(torch.int8).sort(dim=1, stable=True).indices[:, :width]
        tokens.append(torch.nn.functional.pad(order, (0, width - order.shape[1])))
    return torch.cat(tokens, 1)
