"""Run a subject only up to a decoder layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from neuron_atlas.tasks.subject.load import Subject


@contextmanager
def truncated(subject: Subject, last_layer: int) -> Iterator[None]:
    """Within the block, forward passes skip the decoder layers above `last_layer`.

    The activations up to `last_layer` are the same as without this; the output of the model means
    nothing.
    """
    decoder = subject.decoder
    layers = decoder.layers
    decoder.layers = layers[: last_layer + 1]
    try:
        yield
    finally:
        decoder.layers = layers
