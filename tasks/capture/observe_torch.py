"""The record of a batch in plain torch operations: for any device and number format."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, CODE_OF_BIN_0, DROPPED_BITS
from neuron_atlas.tasks.capture.batch import Batch
from neuron_atlas.tasks.capture.record import EVIDENCE, LayerRecord, Layout, RunningSums
from neuron_atlas.tasks.capture.top_n import EMPTY, insert, pack
from neuron_atlas.tasks.capture.traces import keep_traces
from neuron_atlas.tasks.subject.encode import TEXT

_COUNTED_AT_ONCE = 2**25
"""Activations whose bins are worked out together, which bounds the memory that takes."""


def observe(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """See tasks.capture.observe."""
    values = activations.float()
    finite = values.isfinite()
    peaks, tokens = _peaks(values, finite, batch.roles)
    _add_moments(record.tally, values, finite, peaks, batch.roles)
    _count_bins(record.tally.histogram, values, finite, batch)
    enter(record, peaks, tokens, activations, batch)


def enter(
    record: LayerRecord,
    peaks: torch.Tensor,
    tokens: torch.Tensor,
    activations: torch.Tensor,
    batch: Batch,
) -> None:
    """Put the batch's samples that beat a neuron's weakest into the record.

    peaks: float32 [roles, batch, neurons]. tokens: int64, the first that reaches each.
    """
    roles = list(record.peak_roles)
    # Of equal peaks in several roles the first is the sample's.
    peak, winner = peaks[roles].max(0)
    keys = pack(peak, batch.sample_ids[:, None])
    # A sample without a finite activation at these roles is evidence of nothing.
    keys = keys.masked_fill(peak.isneginf(), EMPTY)
    entered = insert(record.keys, keys.T.contiguous())
    token = tokens[roles].gather(0, winner[None])[0][entered.sample, entered.neuron]
    places = _layout_places(batch.roles, record.layout)
    record.peak_places[entered.neuron, entered.slot] = places[entered.sample, token]
    if record.traces is not None:
        keep_traces(record.traces, record.layout, entered, activations, batch)


def _peaks(
    values: torch.Tensor, finite: torch.Tensor, roles: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each role's highest finite activation float32 [roles, batch, neurons], -inf without one,
    and the first token int64 that reaches it."""
    found = [
        values.masked_fill((roles != role)[:, :, None] | ~finite, -torch.inf).max(1)
        for role in range(len(ROLES))
    ]
    return torch.stack([peak for peak, _ in found]), torch.stack([token for _, token in found])


def _add_moments(
    tally: RunningSums,
    values: torch.Tensor,
    finite: torch.Tensor,
    peaks: torch.Tensor,
    roles: torch.Tensor,
) -> None:
    numbers = values.masked_fill(~finite, 0.0)
    # A product with each sample's 0/1 membership sums over its tokens without a copy a role.
    membership = torch.stack([roles == role for role in range(len(ROLES))], 1).float()
    tally.tokens += membership.sum((0, 2)).long()
    tally.total += (membership @ numbers).double().sum(0)
    tally.squares += (membership @ numbers.square()).double().sum(0)
    tally.positive += (membership @ (numbers > 0).float()).sum(0).long()
    tally.nonfinite += (membership @ (~finite).float()).sum(0).long()
    torch.maximum(tally.maximum, peaks.amax(1), out=tally.maximum)


def _count_bins(
    histogram: torch.Tensor, values: torch.Tensor, finite: torch.Tensor, batch: Batch
) -> None:
    """Count finite visual and text activations into int32 [2, BLOCKS * BINS, neurons]."""
    _, cells, neurons = histogram.shape
    neuron = torch.arange(neurons, device=values.device)
    flat = histogram.view(-1)
    at_once = max(1, _COUNTED_AT_ONCE // (values.shape[1] * neurons))
    for role in EVIDENCE:
        for start in range(0, len(batch), at_once):
            rows = slice(start, start + at_once)
            sample, token = (batch.roles[rows] == role).nonzero(as_tuple=True)
            chosen = values[rows][sample, token]
            code = (chosen.view(torch.int32) >> DROPPED_BITS) - CODE_OF_BIN_0
            cell = code.clamp(0, BINS - 1).long()
            cell += batch.blocks[rows][sample][:, None] * BINS + role * cells
            cell = cell * neurons + neuron
            counted = finite[rows][sample, token].int()
            flat.scatter_add_(0, cell.flatten(), counted.flatten())


def _layout_places(roles: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The place int32 [batch, tokens] of every visual and text token in its sample's trace."""
    visual, text = ((roles == role).cumsum(1, dtype=torch.int32) - 1 for role in EVIDENCE)
    return torch.where(roles == TEXT, text + layout.visual, visual)
