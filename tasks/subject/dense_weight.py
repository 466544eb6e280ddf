"""Read the weights of a linear layer as one matrix, also where they are stored quantized."""

from __future__ import annotations

import itertools
from typing import Any

import torch

_DENSE = (torch.float32, torch.float16, torch.bfloat16)
_ROWS = 1024
"""Rows of the identity in one forward pass."""


def dense_weight(linear: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight of a linear layer as [out_features, in_features], without gradient.

    A plain layer returns its own weight. Of any other layer, such as a quantized one or one with an
    adapter, each input feature is sent through alone: the output minus the bias is its column, with
    the rounding of the layer's own arithmetic. dtype: of the activations that the layer reads.
    """
    weight = getattr(linear, "weight", None)
    if weight is not None and type(linear) is torch.nn.Linear and _is_plain(weight):
        return weight.detach()
    device = next(itertools.chain(linear.parameters(), linear.buffers())).device
    columns = []
    with torch.no_grad():
        zeros = torch.zeros(1, 1, linear.in_features, dtype=dtype, device=device)
        bias = linear(zeros)
        for start in range(0, linear.in_features, _ROWS):
            size = min(_ROWS, linear.in_features - start)
            rows = torch.zeros(1, size, linear.in_features, dtype=dtype, device=device)
            rows[0, range(size), range(start, start + size)] = 1
            columns.append((linear(rows) - bias)[0])
    return torch.cat(columns).T


def _is_plain(weight: Any) -> bool:
    is_parameter = type(weight) in (torch.Tensor, torch.nn.Parameter)
    return is_parameter and type(weight.data) is torch.Tensor and weight.dtype in _DENSE
