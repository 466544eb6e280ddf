"""Summarize the samples that entered a record, with torch operations on any device."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.capture.record import EVIDENCE, SlotSummaries
from neuron_atlas.tasks.capture.top_n import Entries
from neuron_atlas.tasks.subject.batches import FIRST_TEXT, Batch
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents, rows_at

_CHUNK_ACTIVATIONS = 2**22
"""Activations that are gathered together; this bounds the memory."""


def summarize(
    slots: SlotSummaries,
    entered: Entries,
    activations: torch.Tensor | SparseLatents,
    batch: Batch,
) -> None:
    """Write the summaries of the samples that entered into their slots.

    activations: [batch, tokens, neurons].
    """
    step = max(1, _CHUNK_ACTIVATIONS // batch.roles.shape[1])
    for start in range(0, entered.neuron.numel(), step):
        chunk = Entries(*(part[start : start + step] for part in entered))
        _summarize_chunk(slots, chunk, rows_at(activations, chunk.sample, chunk.neuron), batch)


def summarize_sparse(
    slots: SlotSummaries, entered: Entries, latents: SparseLatents, batch: Batch
) -> None:
    """Write the summaries as `summarize` does. Most latents are 0 at all tokens of a sample that
    enters while a record has empty slots; these are not written out by token."""
    is_active = latents.n_active(entered.sample, entered.neuron) > 0
    summarize(slots, Entries(*(part[is_active] for part in entered)), latents, batch)
    neuron, slot, sample = (part[~is_active] for part in entered)
    rank = torch.arange(slots.top.shape[3], device=batch.roles.device)
    for role in EVIDENCE:
        count = (batch.roles == role).sum(1)[sample]
        highest = torch.zeros((), dtype=slots.top.dtype, device=batch.roles.device)
        slots.top[role, neuron, slot] = torch.where(rank < count[:, None], highest, -torch.inf)
        slots.active[role, neuron, slot] = 0
        if role == TEXT:
            slots.text_peak_token[neuron, slot] = (count > 0).int() - 1
    slots.visual_sum[neuron, slot] = 0
    slots.visual_sum_sq[neuron, slot] = 0


def _summarize_chunk(
    slots: SlotSummaries, entered: Entries, values: torch.Tensor, batch: Batch
) -> None:
    """values: [entered, tokens], the neuron at all tokens of the sample."""
    neuron, slot, sample = entered
    finite = values.isfinite()
    n_top = min(slots.top.shape[3], values.shape[1])
    slots.top[:, neuron, slot] = -torch.inf  # Of a sample with more tokens, which leaves.
    for role in EVIDENCE:
        own = values.masked_fill((batch.roles != role)[sample] | ~finite, -torch.inf)
        slots.top[role, neuron, slot, :n_top] = own.topk(n_top, dim=1).values.to(slots.top.dtype)
        slots.active[role, neuron, slot] = (own > 0).sum(1, dtype=torch.int32)
        if role == VISUAL:
            positive = own.double().clamp(min=0)
            slots.visual_sum[neuron, slot] = positive.sum(1).float()
            slots.visual_sum_sq[neuron, slot] = positive.square().sum(1).float()
        if role == TEXT:
            peak, peak_token = own.max(1)
            position = batch.positions[sample, peak_token] - FIRST_TEXT
            position = position.masked_fill(peak.isneginf(), -1)
            slots.text_peak_token[neuron, slot] = position
