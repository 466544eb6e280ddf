"""Take one layer's activations into its record."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from tasks.capture import observe_torch
from tasks.capture.batch import Batch
from tasks.capture.record import LayerRecord
from tasks.capture.traces import keep_random_traces

_COMPILED = find_spec("numba") is not None
"""A machine that has torch alone captures too, only slower on its CPU."""

if _COMPILED:
    from tasks.capture import observe_compiled


def observe(record: LayerRecord, activations: torch.Tensor, batch: Batch) -> None:
    """Take in the activations [batch, tokens, neurons] of one forward pass.

    Both ways of doing so leave the same record. The compiled one reads the activations once.
    """
    if _COMPILED and activations.device.type == "cpu":
        observe_compiled.observe(record, activations, batch)
    else:
        observe_torch.observe(record, activations, batch)
    if record.random_traces is not None:
        keep_random_traces(record, activations, batch)
