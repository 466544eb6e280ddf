"""Activations of samples that share a batch."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import EncodedSample
from neuron_atlas.tasks.subject.hook_points import decoder_layers, observing
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.settings import HookPoint


def activations_of(
    subject: Subject,
    samples: list[EncodedSample],
    length: int,
    layer: int | None = None,
    hook_point: HookPoint = "gate",
) -> torch.Tensor:
    """Activations of a layer, the last if None [samples, length, neurons]."""
    chosen = len(decoder_layers(subject)) - 1 if layer is None else layer
    seen: list[torch.Tensor] = []
    with (
        observing(subject, [chosen], hook_point, lambda _, values: seen.append(values.clone())),
        torch.inference_mode(),
    ):
        forward_body(subject, batch_inputs(samples, length))
    return seen[0]
