"""What capture knows of each neuron's activations that attribution needs in advance."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.effects.attribution import NeuronScales

_EVIDENCE = ("visual", "text")


def neuron_scales(moments: pa.Table, strong_share: float) -> NeuronScales:
    """Return the scales of one layer's neurons, in the order of `moments`.

    A token is strong from `strong_share` of the neuron's highest activation over visual and text
    tokens. A neuron that is never above 0 has no strong token.
    """
    highest = np.fmax(*(_numbers(moments, f"max_{role}") for role in _EVIDENCE))
    strong = np.where(highest > 0, strong_share * highest, np.inf)
    return NeuronScales(mean_activations(moments).astype(np.float32), strong.astype(np.float32))


def mean_activations(moments: pa.Table) -> np.ndarray:
    """Return each neuron's mean over visual and text tokens, float64 [neurons]; 0 without any."""
    counts = np.stack([_numbers(moments, f"n_{role}") for role in _EVIDENCE])
    means = np.stack([np.nan_to_num(_numbers(moments, f"mean_{role}")) for role in _EVIDENCE])
    return (counts * means).sum(0) / np.maximum(counts.sum(0), 1)


def _numbers(moments: pa.Table, name: str) -> np.ndarray:
    return moments[name].to_numpy().astype(np.float64)
