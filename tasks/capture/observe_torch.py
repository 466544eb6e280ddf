"""Update a record with plain torch operations, for any device and number format."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, CODE_OF_BIN_0, DROPPED_BITS
from neuron_atlas.tasks.capture.record import EVIDENCE, LayerRecord, TokenStatistics
from neuron_atlas.tasks.capture.slot_summaries import summarize
from neuron_atlas.tasks.capture.top_n import EMPTY, Entries, insert, pack
from neuron_atlas.tasks.subject.batches import Batch

_CHUNK_ACTIVATIONS = 2**25
"""Activations that are binned together; this bounds the memory."""


def observe(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Update the record with a batch's activations; see `tasks.capture.observe.observe`."""
    values = activations.float()
    finite = values.isfinite()
    peaks, tokens = role_peaks(values, finite, batch.roles)
    _add_moments(record.statistics, values, finite, peaks, batch.roles)
    _count_bins(record.statistics.histogram, values, finite, batch)
    entered = insert_exemplars(record, peaks, tokens, batch)
    summarize(record.slots, entered, activations, batch)


def insert_exemplars(
    record: LayerRecord,
    peaks: torch.Tensor,
    tokens: torch.Tensor,
    batch: Batch,
) -> Entries:
    """Insert the batch's samples that beat a neuron's weakest exemplar into the record, and return
    them. Their slots have no summaries yet.

    peaks: float32 [roles, batch, neurons]. tokens: int64, same shape, the first token of each peak.
    """
    roles = list(record.peak_roles)
    # If several roles have equal peaks, the first role counts.
    peak, winner = peaks[roles].max(0)
    keys = pack(peak, batch.sample_ids[:, None])
    # A sample without a finite activation at these roles is not ranked.
    keys = keys.masked_fill(peak.isneginf(), EMPTY)
    entered = insert(record.keys, keys.T.contiguous())
    token = tokens[roles].gather(0, winner[None])[0][entered.sample, entered.neuron]
    position = batch.positions[entered.sample, token]
    record.peak_positions[entered.neuron, entered.slot] = position
    return entered


def role_peaks(
    values: torch.Tensor, finite: torch.Tensor, roles: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each role's highest finite activation, float32 [roles, batch, neurons], -inf without
    one, and the first token that reaches it, int64 of the same shape."""
    maxima = [
        values.masked_fill((roles != role)[:, :, None] | ~finite, -torch.inf).max(1)
        for role in range(len(ROLES))
    ]
    return torch.stack([peak for peak, _ in maxima]), torch.stack([token for _, token in maxima])


def _add_moments(
    statistics: TokenStatistics,
    values: torch.Tensor,
    finite: torch.Tensor,
    peaks: torch.Tensor,
    roles: torch.Tensor,
) -> None:
    numbers = values.masked_fill(~finite, 0.0)
    # Multiplying by the 0/1 role membership sums over tokens without a copy for each role.
    membership = torch.stack([roles == role for role in range(len(ROLES))], 1).float()
    statistics.tokens += membership.sum((0, 2)).long()[:, None]
    statistics.total += (membership @ numbers).double().sum(0)
    statistics.squares += (membership @ numbers.square()).double().sum(0)
    statistics.positive += (membership @ (numbers > 0).float()).sum(0).long()
    statistics.nonfinite += (membership @ (~finite).float()).sum(0).long()
    torch.maximum(statistics.maximum, peaks.amax(1), out=statistics.maximum)


def _count_bins(
    histogram: torch.Tensor, values: torch.Tensor, finite: torch.Tensor, batch: Batch
) -> None:
    """Count finite visual and text activations into int32 [2, BLOCKS * BINS, neurons]."""
    _, cells, neurons = histogram.shape
    neuron = torch.arange(neurons, device=values.device)
    flat = histogram.view(-1)
    chunk = max(1, _CHUNK_ACTIVATIONS // (values.shape[1] * neurons))
    for role in EVIDENCE:
        for start in range(0, len(batch), chunk):
            rows = slice(start, start + chunk)
            sample, token = (batch.roles[rows] == role).nonzero(as_tuple=True)
            chosen = values[rows][sample, token]
            code = (chosen.view(torch.int32) >> DROPPED_BITS) - CODE_OF_BIN_0
            cell = code.clamp(0, BINS - 1).long()
            cell += batch.blocks[rows][sample][:, None] * BINS + role * cells
            cell = cell * neurons + neuron
            counted = finite[rows][sample, token].int()
            flat.scatter_add_(0, cell.flatten(), counted.flatten())
