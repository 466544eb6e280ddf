"""Summarize the samples that entered a record, with torch operations on any device."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.capture.record import EVIDENCE, SlotSummaries
from neuron_atlas.tasks.capture.top_n import Entries
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL

_CHUNK_ACTIVATIONS = 2**22
"""Activations that are gathered together; this bounds the memory."""


def summarize(
    slots: SlotSummaries, entered: Entries, activations: torch.Tensor, roles: torch.Tensor
) -> None:
    """Write the summaries of the samples that entered into their slots.

    activations: [batch, tokens, neurons]. roles: int8 [batch, tokens].
    """
    step = max(1, _CHUNK_ACTIVATIONS // activations.shape[1])
    for start in range(0, entered.neuron.numel(), step):
        chunk = Entries(*(part[start : start + step] for part in entered))
        _summarize_chunk(slots, chunk, activations, roles)


def _summarize_chunk(
    slots: SlotSummaries, entered: Entries, activations: torch.Tensor, roles: torch.Tensor
) -> None:
    neuron, slot, sample = entered
    token = torch.arange(activations.shape[1], device=activations.device)
    values = activations[sample[:, None], token, neuron[:, None]]
    finite = values.isfinite()
    n_top = min(slots.top.shape[3], len(token))
    for role in EVIDENCE:
        own = values.masked_fill((roles != role)[sample] | ~finite, -torch.inf)
        slots.top[role, neuron, slot, :n_top] = own.topk(n_top, dim=1).values.to(slots.top.dtype)
        slots.active[role, neuron, slot] = (own > 0).sum(1, dtype=torch.int32)
        if role == VISUAL:
            positive = own.double().clamp(min=0)
            slots.visual_sum[neuron, slot] = positive.sum(1).float()
            slots.visual_sum_sq[neuron, slot] = positive.square().sum(1).float()
        if role == TEXT:
            peak, peak_token = own.max(1)
            position = (roles == TEXT).cumsum(1, dtype=torch.int32) - 1
            position = position[sample, peak_token].masked_fill(peak.isneginf(), -1)
            slots.text_peak_token[neuron, slot] = position
