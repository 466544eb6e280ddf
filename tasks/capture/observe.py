"""Update a layer's record with the activations of one batch, by the fastest available backend."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

import torch

from neuron_atlas.tasks.capture import observe_sparse, observe_torch
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.subject.batches import Batch
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents

_COMPILED = find_spec("numba") is not None
"""Without numba, capture on a CPU falls back to plain torch, which is slower."""

if _COMPILED:
    from neuron_atlas.tasks.capture import observe_compiled

_log = logging.getLogger(__name__)


def observe(record: LayerRecord, activations: torch.Tensor | SparseLatents, batch: Batch) -> None:
    """Update the record with the activations [batch, tokens, neurons] of one forward pass.

    All backends give the same record, except for sums, which may differ by 1e-5 (relative), and
    the order of slots. The compiled and the fused backend read the activations once; plain torch
    runs on any device. The latents of a top-k SAE are observed without those that are 0.
    """
    if isinstance(activations, SparseLatents):
        observe_sparse.observe(record, activations, batch)
        return
    backend = observe_backend(activations.device, activations.dtype)
    if backend == "fused":
        from neuron_atlas.tasks.capture import observe_fused

        observe_fused.observe(record, activations, batch)
    elif backend == "compiled":
        observe_compiled.observe(record, activations, batch)
    else:
        observe_torch.observe(record, activations, batch)


def observe_backend(device: torch.device, dtype: torch.dtype) -> str:
    """Return the backend for a device: "fused" (GPU kernel), "compiled" (CPU) or "torch"."""
    if device.type == "cuda" and _fused_is_right(device, dtype):
        return "fused"
    return "compiled" if device.type == "cpu" and _COMPILED else "torch"


@cache
def _fused_is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the kernel compiles for this GPU and matches plain torch on a small batch."""
    from neuron_atlas.tasks.capture.self_check import first_difference

    try:
        from neuron_atlas.tasks.capture import observe_fused

        difference = first_difference(observe_fused.observe, device, dtype)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Triton is missing, or cannot compile for this device.
        difference = f"{type(error).__name__}: {error}".splitlines()[0]
    if difference:
        _log.warning("capture continues without its GPU kernel, which is slower: %s", difference)
    return not difference
