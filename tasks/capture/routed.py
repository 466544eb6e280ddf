"""Make a batch of the tokens that were routed to one expert."""

from __future__ import annotations

from dataclasses import replace

import torch

from neuron_atlas.tasks.subject.batches import PADDING, Batch


def routed_only(
    values: torch.Tensor, tokens: torch.Tensor, batch: Batch
) -> tuple[torch.Tensor, Batch]:
    """Return an expert's activations [batch, routed tokens, neurons], and the batch of only these
    tokens: each keeps its role and its position in the sample.

    values: [rows, neurons]. tokens: int64 [rows], ascending flat indices into the batch's tokens.
    """
    n_samples, n_tokens = batch.roles.shape
    sample = tokens // n_tokens
    counts = torch.bincount(sample, minlength=n_samples)
    first = counts.cumsum(0) - counts
    place = torch.arange(len(tokens), device=tokens.device) - first[sample]
    size = (n_samples, int(counts.max()))
    routed = values.new_zeros(*size, values.shape[1])
    routed[sample, place] = values
    roles = batch.roles.new_full(size, PADDING)
    roles[sample, place] = batch.roles.flatten()[tokens]
    positions = batch.positions.new_zeros(size)
    positions[sample, place] = batch.positions.flatten()[tokens]
    return routed, replace(batch, inputs={}, roles=roles, positions=positions)
