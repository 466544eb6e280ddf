"""Decide whether a backward pass fits into memory without computing layers twice."""

from __future__ import annotations

from typing import Any

from neuron_atlas.tasks.subject.batches import Batch
from neuron_atlas.tasks.subject.ffn import find_ffn
from neuron_atlas.tasks.subject.free_memory import free_device_bytes, free_host_bytes
from neuron_atlas.tasks.subject.hook_points import decoder_layers
from neuron_atlas.tasks.subject.mixture import find_mixture
from neuron_atlas.tasks.subject.subject import Subject

_USABLE = 0.6
"""Share of the free memory that stored activations may take."""
_FFN_TENSORS, _STREAM_TENSORS, _FLOAT_STREAMS = 5, 10, 3
"""Tensors that one layer stores for its backward pass: of the FFN's width, of the residual stream's
width, and of these in float32, inside the norms. An estimate that is high for decoders with gated
FFNs; where it is too low, the batch is halved when memory runs out."""


def stored_bytes(subject: Subject, batch: Batch) -> int:
    """Return the bytes that a backward pass of the batch stores without checkpoints."""
    layers = decoder_layers(subject)
    neurons = sum(map(_neurons, layers))
    streams = len(layers) * int(subject.model.config.get_text_config().hidden_size)
    size = subject.model.dtype.itemsize
    token = size * (_FFN_TENSORS * neurons + _STREAM_TENSORS * streams)
    return batch.roles.numel() * (token + 4 * _FLOAT_STREAMS * streams)


def _neurons(layer: Any) -> int:
    if mixture := find_mixture(layer):
        return mixture.layout.neurons
    ffn = find_ffn(layer)
    return ffn.neurons if ffn else 0


def fits_without_checkpoints(subject: Subject, batch: Batch, n_processes: int = 1) -> bool:
    """Return whether the backward pass of a batch fits into the memory that is free now.

    n_processes: processes that share the host's memory.
    """
    device = subject.device
    free = free_device_bytes(device) if device.type == "cuda" else free_host_bytes(n_processes)
    return stored_bytes(subject, batch) <= _USABLE * free
