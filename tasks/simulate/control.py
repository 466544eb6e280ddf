"""Controls: explanations that should not work, so that a score has something to stand beside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ExplainedNeuron:
    """A neuron with an explanation that is ok."""

    layer: int
    neuron: int
    type: str
    text: str


def other_neurons(
    explained: Sequence[ExplainedNeuron], seed: int
) -> dict[tuple[int, int], ExplainedNeuron]:
    """For every neuron another one whose explanation says something else.

    One of the same layer and type if there is one, else of the same type, else any; which of
    them is decided by hash, so it depends on nothing but the seed and who is there. A neuron is
    absent from the result where all explanations are the same.
    """
    explained = sorted(explained, key=lambda neuron: (neuron.layer, neuron.neuron))
    layer_and_type: dict[tuple[int, str], list[ExplainedNeuron]] = {}
    same_type: dict[str, list[ExplainedNeuron]] = {}
    for neuron in explained:
        layer_and_type.setdefault((neuron.layer, neuron.type), []).append(neuron)
        same_type.setdefault(neuron.type, []).append(neuron)
    chosen = {}
    for neuron in explained:
        pools = (
            layer_and_type[neuron.layer, neuron.type],
            same_type[neuron.type],
            explained,
        )
        control = next(filter(None, (_draw(pool, neuron, seed) for pool in pools)), None)
        if control is not None:
            chosen[neuron.layer, neuron.neuron] = control
    return chosen


def _draw(
    pool: Sequence[ExplainedNeuron], neuron: ExplainedNeuron, seed: int
) -> ExplainedNeuron | None:
    """Walk the pool from a hashed place to the first explanation that differs."""
    lot = hashlib.blake2b(f"{seed}:{neuron.layer}:{neuron.neuron}".encode(), digest_size=8).digest()
    start = int.from_bytes(lot, "big") % len(pool)
    for step in range(len(pool)):
        other = pool[(start + step) % len(pool)]
        if _said(other) != _said(neuron):
            return other
    return None


def _said(neuron: ExplainedNeuron) -> str:
    """The explanation without its figures, which differ from neuron to neuron."""
    return neuron.text.split(" (r = ")[0].strip()
