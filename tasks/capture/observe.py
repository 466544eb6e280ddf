"""Take one layer's activations into its record."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

import torch

from neuron_atlas.tasks.capture import observe_torch
from neuron_atlas.tasks.capture.batch import Batch
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.traces import keep_random_traces

_COMPILED = find_spec("numba") is not None
"""A machine that has torch alone captures too, only slower on its CPU."""

if _COMPILED:
    from neuron_atlas.tasks.capture import observe_compiled

_log = logging.getLogger(__name__)


def observe(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Take in the activations [batch, tokens, neurons] of one forward pass.

    All ways of doing so leave the same record. The compiled and the fused one read the activations
    once; the plain one runs wherever torch does.
    """
    way = way_of_observing(activations.device, activations.dtype)
    if way == "fused":
        from neuron_atlas.tasks.capture import observe_fused

        observe_fused.observe(record, activations, batch)
    elif way == "compiled":
        observe_compiled.observe(record, activations, batch)
    else:
        observe_torch.observe(record, activations, batch)
    if record.random_traces is not None:
        keep_random_traces(record, activations, batch)


def way_of_observing(device: torch.device, dtype: torch.dtype) -> str:
    """How activations are read there: fused (GPU kernel), compiled (CPU), or plain torch."""
    if device.type == "cuda" and _fused_is_right(device, dtype):
        return "fused"
    return "compiled" if device.type == "cpu" and _COMPILED else "torch"


@cache
def _fused_is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel compiles for this GPU and agrees with plain torch on a small batch."""
    from neuron_atlas.tasks.capture.self_check import first_difference

    try:
        from neuron_atlas.tasks.capture import observe_fused

        difference = first_difference(observe_fused.observe, device, dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton is absent, or cannot compile for this device.
        difference = f"{type(error).__name__}: {error}".splitlines()[0]
    if difference:
        _log.warning("capture goes on without its GPU kernel, at some cost in time: %s", difference)
    return not difference
