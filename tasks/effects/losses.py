"""The loss of every token of the descriptions."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import Batch
from neuron_atlas.tasks.subject.encode import TEXT
from neuron_atlas.tasks.subject.subject import Subject

_MOST_LOGITS = 2**26
"""Logits that are in memory at a time: 256 MB of float32."""


def text_losses(subject: Subject, batch: Batch) -> torch.Tensor:
    """Return the loss in nats of each text token, given the tokens before it: float32 [batch,
    tokens], 0 at all other tokens.

    The logits are computed for text tokens only. Keeps the graph if gradients are enabled.
    """
    hidden = forward_body(subject, batch.inputs)
    rows, tokens = (batch.roles == TEXT).nonzero(as_tuple=True)
    targets = batch.inputs["input_ids"][rows, tokens].to(hidden.device)
    # A description never starts a sequence, so every text token has a token before it.
    before = hidden[rows.to(hidden.device), tokens.to(hidden.device) - 1]
    size = max(1, _MOST_LOGITS // subject.vocabulary)
    parts = [
        _losses(subject, before[start : start + size], targets[start : start + size])
        for start in range(0, len(before), size)
    ]
    losses = torch.zeros(batch.roles.shape, device=hidden.device)
    return losses.index_put(
        (rows.to(hidden.device), tokens.to(hidden.device)),
        torch.cat([before.new_zeros(0).float(), *parts]),
    )


def _losses(subject: Subject, before: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    def loss(part: torch.Tensor) -> torch.Tensor:
        logits = subject.model.get_output_embeddings()(part).float()
        return cross_entropy(logits, targets, reduction="none")

    if torch.is_grad_enabled():
        return checkpoint(loss, before, use_reentrant=False)
    return loss(before)
