"""Gate activations of samples that share a batch."""

from __future__ import annotations

import torch

from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import EncodedSample
from neuron_atlas.tasks.subject.hook_points import decoder_layers, observing
from neuron_atlas.tasks.subject.load import Subject


def gate_of(subject: Subject, samples: list[EncodedSample], length: int) -> torch.Tensor:
    """Gate activations of the last layer [samples, length, neurons]."""
    last = len(decoder_layers(subject)) - 1
    seen: list[torch.Tensor] = []
    with (
        observing(subject, [last], "gate", lambda _, values: seen.append(values)),
        torch.inference_mode(),
    ):
        forward_body(subject, batch_inputs(samples, length))
    return seen[0]
