"""Update a record with the active latents of a batch, for top-k SAEs on any device.

The work grows with the active latents of all tokens, and with the latents of all samples, and not
with the latents of all tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, CODE_OF_BIN_0, DROPPED_BITS
from neuron_atlas.tasks.capture.observe_torch import insert_exemplars, role_peaks
from neuron_atlas.tasks.capture.record import EVIDENCE, LayerRecord, TokenStatistics
from neuron_atlas.tasks.capture.slot_summaries import summarize_sparse
from neuron_atlas.tasks.subject.batches import Batch
from neuron_atlas.tasks.subject.sae.sparse import ActiveEntries, SparseLatents

BLOCK_PEAKS = 2**22
"""Peaks of roles, samples and latents that are held together; this bounds the memory."""

PEAK_BYTES = 40
"""Bytes per such peak: the peak, its token, its key, and what ranks it."""


def observe(record: LayerRecord, latents: SparseLatents, batch: Batch) -> None:
    """Update the record with a batch's latents; see `tasks.capture.observe.observe`."""
    step = samples_together(latents.count)
    for start in range(0, len(batch), step):
        part = slice(start, start + step)
        samples = replace(
            batch,
            ids=batch.ids[part],
            inputs={},
            roles=batch.roles[part],
            sample_ids=batch.sample_ids[part],
            blocks=batch.blocks[part],
            positions=batch.positions[part],
        )
        _observe(record, latents.of_samples(part), samples)


def samples_together(latents: int) -> int:
    """Return how many samples are observed together."""
    return max(1, BLOCK_PEAKS // (len(ROLES) * latents))


def _observe(record: LayerRecord, latents: SparseLatents, batch: Batch) -> None:
    n_tokens = torch.stack([(batch.roles == role).sum(1) for role in range(len(ROLES))])
    role = batch.roles[latents.entries.sample, latents.entries.token].long()
    peaks, tokens = _peaks(latents, role, n_tokens, batch.roles)
    statistics = record.statistics
    statistics.tokens += n_tokens.sum(1)[:, None]
    _add_moments(statistics, latents.entries, role)
    torch.maximum(statistics.maximum, peaks.amax(1), out=statistics.maximum)
    _count_bins(statistics.histogram, latents.entries, role, n_tokens, batch.blocks)
    entered = insert_exemplars(record, peaks, tokens, batch)
    summarize_sparse(record.slots, entered, latents, batch)


def _peaks(
    latents: SparseLatents, role: torch.Tensor, n_tokens: torch.Tensor, roles: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `role_peaks` returns, for the latents at all tokens."""
    entries = latents.entries
    n_samples, length = roles.shape
    shape = (*n_tokens.shape, latents.count)
    silent = torch.zeros(n_tokens.shape, device=roles.device).masked_fill(n_tokens == 0, -torch.inf)
    peaks = silent[:, :, None].expand(shape).clone()
    first = torch.stack([(roles == one).int().argmax(1) for one in range(len(ROLES))])
    tokens = first[:, :, None].expand(shape).clone()
    cell = (role * n_samples + entries.sample) * latents.count + entries.latent
    known = (role >= 0) & entries.value.isfinite()
    place, value, token = cell[known], entries.value[known], entries.token[known]
    peaks.view(-1).scatter_reduce_(0, place, value, "amax")
    reaches = value == peaks.view(-1)[place]
    tokens.view(-1)[place] = length
    tokens.view(-1).scatter_reduce_(0, place[reaches], token[reaches], "amin")
    # Where such a latent is not finite, its other tokens, if any, decide.
    spoiled = (entries.sample * latents.count + entries.latent)[~entries.value.isfinite()].unique()
    for pair in spoiled.split(max(1, BLOCK_PEAKS // length)):
        sample, latent = pair // latents.count, pair % latents.count
        values = latents.rows(sample, latent)[:, :, None]
        found, first = role_peaks(values, values.isfinite(), roles[sample])
        peaks[:, sample, latent], tokens[:, sample, latent] = found[:, :, 0], first[:, :, 0]
    return peaks, tokens


def _add_moments(statistics: TokenStatistics, entries: ActiveEntries, role: torch.Tensor) -> None:
    known = role >= 0
    finite = entries.value.isfinite()
    cell = role * statistics.total.shape[1] + entries.latent
    number = entries.value.double()
    ones = torch.ones_like(cell)
    for total, added, mask in (
        (statistics.total, number, finite),
        (statistics.squares, number.square(), finite),
        (statistics.positive, ones, finite),
        (statistics.nonfinite, ones, ~finite),
    ):
        chosen = known & mask
        total.view(-1).index_add_(0, cell[chosen], added[chosen])


def _count_bins(
    histogram: torch.Tensor,
    entries: ActiveEntries,
    role: torch.Tensor,
    n_tokens: torch.Tensor,
    blocks: torch.Tensor,
) -> None:
    """Count finite visual and text activations into int32 [2, BLOCKS * BINS, latents]."""
    _, cells, latents = histogram.shape
    # Every token is counted as a 0, in the lowest bin, and the active ones are moved.
    per_block = n_tokens.new_zeros(len(EVIDENCE), BLOCKS)
    per_block.index_add_(1, blocks, n_tokens[list(EVIDENCE)])
    histogram.view(len(EVIDENCE), BLOCKS, BINS, latents)[:, :, 0] += per_block[:, :, None].int()
    chosen = (role >= 0) & (role < len(EVIDENCE))
    role, value = role[chosen], entries.value[chosen]
    sample, latent = entries.sample[chosen], entries.latent[chosen]
    code = ((value.view(torch.int32) >> DROPPED_BITS) - CODE_OF_BIN_0).clamp(0, BINS - 1).long()
    lowest = role * cells + blocks[sample] * BINS
    counted = value.isfinite().int()
    flat = histogram.view(-1)
    flat.index_add_(0, lowest * latents + latent, torch.full_like(counted, -1))
    flat.index_add_(0, (lowest + code) * latents + latent, counted)
