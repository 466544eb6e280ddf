"""Choose the neurons to ablate and the explanations to test, by hashes and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_LEVELS = (0.5, 0.9)
"""Shares of a layer's neurons, by absolute effect, at which the strata of attribution begin."""


@dataclass(frozen=True)
class ChosenNeuron:
    """A neuron to ablate. mean: its mean activation."""

    layer: int
    neuron: int
    mean: float


def choose_neurons(effects: pa.Table, types: pa.Table, count: int, seed: int) -> list[ChosenNeuron]:
    """Choose `count` neurons in turn from strata of layer, type and size of the attribution.

    effects: layer, neuron, effect and mean_activation. types: layer, neuron, type. The choice
    depends on the seed and on no order of rows.
    """
    kinds = dict(
        zip(
            zip(types["layer"].to_pylist(), types["neuron"].to_pylist(), strict=True),
            types["type"].to_pylist(),
            strict=True,
        )
    )
    layers, neurons = (effects[name].to_numpy() for name in ("layer", "neuron"))
    sizes = np.abs(effects["effect"].to_numpy().astype(np.float64))
    means = effects["mean_activation"].to_numpy()
    strata: dict[tuple[int, str, int], list[int]] = {}
    for layer in np.unique(layers):
        rows = np.flatnonzero((layers == layer) & np.isfinite(sizes) & np.isfinite(means))
        ranks = sizes[rows].argsort(kind="stable").argsort(kind="stable") / max(1, len(rows))
        levels = np.searchsorted(_LEVELS, ranks, side="right")
        for row, level in zip(rows.tolist(), levels.tolist(), strict=True):
            kind = kinds.get((int(layer), int(neurons[row])), "unknown")
            strata.setdefault((int(layer), kind, level), []).append(row)

    queues = [
        sorted(rows, key=lambda row: _hashed(seed, int(layers[row]), int(neurons[row])))
        for _, rows in sorted(strata.items(), key=lambda pair: _hashed(seed, *pair[0]))
    ]
    turns = sorted(
        (turn, place) for place, queue in enumerate(queues) for turn in range(len(queue))
    )
    chosen = [queues[place][turn] for turn, place in turns[:count]]
    return sorted(
        (ChosenNeuron(int(layers[row]), int(neurons[row]), float(means[row])) for row in chosen),
        key=lambda one: (one.layer, one.neuron),
    )


def choose_explained(
    keys: Collection[tuple[int, int]], count: int, seed: int
) -> set[tuple[int, int]]:
    """Return `count` of the (layer, neuron) pairs, drawn by a hash of each."""
    return set(sorted(keys, key=lambda key: _hashed(seed, *key))[:count])


def shuffled(sample_ids: Iterable[int], seed: int) -> list[int]:
    """Return the samples in an order that depends on their ids and the seed alone."""
    return sorted(sample_ids, key=lambda one: _hashed(seed, one))


def _hashed(seed: int, *key: object) -> bytes:
    return hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
