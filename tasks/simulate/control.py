"""Assign each neuron a control: the explanation of another neuron."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ExplainedNeuron:
    """Neuron with a usable explanation (status ok)."""

    layer: int
    neuron: int
    type: str
    text: str


def other_neurons(
    explained: Sequence[ExplainedNeuron], seed: int
) -> dict[tuple[int, int], ExplainedNeuron]:
    """Return, for each (layer, neuron), another neuron with a different explanation.

    It has the same layer and type if possible, else the same type, else any. The choice is by hash,
    so it depends only on the seed and the explained neurons. A neuron is absent from the result if
    no other explanation differs from its own.
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
    """Return the first neuron from a hashed position on whose explanation differs."""
    digest = hashlib.blake2b(
        f"{seed}:{neuron.layer}:{neuron.neuron}".encode(), digest_size=8
    ).digest()
    start = int.from_bytes(digest, "big") % len(pool)
    for step in range(len(pool)):
        other = pool[(start + step) % len(pool)]
        if _without_figures(other) != _without_figures(neuron):
            return other
    return None


def _without_figures(neuron: ExplainedNeuron) -> str:
    """Return the explanation without its correlations, which differ between neurons."""
    return neuron.text.split(" (r = ")[0].strip()
