"""Read which neurons to change from the words of a call."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from neuron_atlas.tasks.effects.intervention import Intervention
from neuron_atlas.tasks.probe.errors import ProbeError

NeuronKey = tuple[int, int]
"""Layer and index of a neuron."""

_NEURON = re.compile(r"\s*(\d+):(\d+)\s*")


def parse_neurons(words: str) -> list[NeuronKey]:
    """Return the neurons in a list such as "12:345,3:46". Raises ProbeError."""
    return [_neuron(one, "--without 12:345,3:46") for one in _parts(words)]


def parse_values(words: str) -> dict[NeuronKey, float]:
    """Return the value of each neuron in a list such as "12:345=2.5,3:46=0". Raises ProbeError."""
    values: dict[NeuronKey, float] = {}
    for one in _parts(words):
        name, equals, value = one.partition("=")
        neuron = _neuron(name, "--clamp 12:345=2.5")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not equals or not math.isfinite(number):
            raise ProbeError(f"{one.strip()!r} has no value; write --clamp 12:345=2.5")
        if neuron in values:
            raise ProbeError(f"the neuron {neuron[0]}:{neuron[1]} is changed twice")
        values[neuron] = number
    return values


def interventions(
    without: Sequence[NeuronKey], clamp: Mapping[NeuronKey, float]
) -> list[Intervention]:
    """Return the interventions that zero the neurons of `without` and clamp those of `clamp`.

    Raises ProbeError if a neuron is changed twice.
    """
    seen: set[NeuronKey] = set()
    for layer, neuron in (*without, *clamp):
        if (layer, neuron) in seen:
            raise ProbeError(f"the neuron {layer}:{neuron} is changed twice")
        seen.add((layer, neuron))
    return [
        *(Intervention(layer, (neuron,), "zero") for layer, neuron in without),
        *(
            Intervention(layer, (neuron,), "clamp", value)
            for (layer, neuron), value in clamp.items()
        ),
    ]


def in_words(without: Sequence[NeuronKey], clamp: Mapping[NeuronKey, float]) -> str:
    """Return the changes in words: "without 12:345; with 3:46 at least 2.5"."""
    parts = []
    if without:
        parts.append("without " + ", ".join(f"{layer}:{neuron}" for layer, neuron in without))
    if clamp:
        bounds = [
            f"{layer}:{neuron} at {'least' if value > 0 else 'most'} {value:g}"
            for (layer, neuron), value in clamp.items()
        ]
        parts.append("with " + ", ".join(bounds))
    return "; ".join(parts)


def _parts(words: str) -> list[str]:
    return [one for one in words.split(",") if one.strip()]


def _neuron(words: str, example: str) -> NeuronKey:
    found = _NEURON.fullmatch(words)
    if found is None:
        raise ProbeError(f"{words.strip()!r} is no neuron; write LAYER:NEURON, as in {example}")
    return int(found[1]), int(found[2])
