"""Settings of the `groups` and `steering` stages, importable without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from neuron_atlas.tasks.settings import AtLeastOne, not_hashed

TypeName = Literal["visual", "text", "multi-modal", "unknown"]
Fraction = Annotated[float, Interval(gt=0, le=1)]
_Count = Annotated[int, Ge(0)]
_Sets = Annotated[int, Ge(20)]


@dataclass(frozen=True)
class NamedGroup:
    """A group of neurons that the user names.

    neurons: as "layer:index". words: one of them in a description counts as said; none to count no
    words.
    """

    neurons: tuple[str, ...]
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.neurons:
            raise ValueError("neurons: give at least one neuron, such as 12:345")
        for one in self.neurons:
            layer, _, index = one.partition(":")
            if not (layer.isdecimal() and index.isdecimal()):
                raise ValueError(
                    f"neurons: {one!r} is no neuron; write layer:index, such as 12:345"
                )

    def by_layer(self) -> dict[int, list[int]]:
        """Return the neurons of each layer, ascending."""
        found: dict[int, set[int]] = {}
        for one in self.neurons:
            layer, _, index = one.partition(":")
            found.setdefault(int(layer), set()).add(int(index))
        return {layer: sorted(neurons) for layer, neurons in sorted(found.items())}


@dataclass(frozen=True)
class GroupSettings:
    """Which groups of neurons are ablated, and what is measured.

    samples: samples measured, which decide no neuron's type; 0 leaves the stage out. types: types
    to ablate. shares: shares of a layer's neurons; those with the largest share of the type come
    first. layers: ranges of layers such as "0-7"; None for all captured layers together. named:
    further groups. ablation: sets activations to 0, or to the neuron's mean. random_sets: matched
    random sets of each group. described: measured samples that the subject describes and is asked
    about. questions: yes/no questions about each of them. synonyms: file with the words for each
    object, a line an object, separated by commas. max_perplexity_ratio: a group whose ablation
    raises the perplexity further has broken the subject. resamples: bootstrap draws.
    """

    samples: _Count = 32
    types: tuple[TypeName, ...] = ("visual", "text", "multi-modal", "unknown")
    shares: tuple[Fraction, ...] = (0.05,)
    layers: tuple[str, ...] | None = None
    named: dict[str, NamedGroup] | None = None
    ablation: Literal["zero", "mean"] = "zero"
    random_sets: _Sets = 20
    described: _Count = 0
    questions: _Count = 2
    max_new_tokens: AtLeastOne = 128
    # Not hashed: its text is.
    synonyms: str | None = not_hashed(None)
    max_perplexity_ratio: Annotated[float, Gt(1)] = 3.0
    resamples: AtLeastOne = 2000
    seed: int = 0

    @property
    def named_groups(self) -> dict[str, NamedGroup]:
        """The groups that the user names."""
        return self.named or {}

    def __post_init__(self) -> None:
        if not self.shares:
            raise ValueError("shares: give at least one share of a layer's neurons, such as 0.05")
        for one in self.layers or ():
            parse_range(one)
        for name in self.named or {}:
            if name in TYPE_NAMES:
                raise ValueError(f"named: {name!r} is a type; choose another name for the group")


@dataclass(frozen=True)
class SteeringSettings:
    """What is scaled, and which explained neurons are clamped.

    types: types to scale; named groups with words are scaled, too. alphas: factors. The best one
    is chosen on one half of the samples and reported on the other. A type has the largest of
    groups.shares. neurons_per_type: explained neurons of each type that are clamped at their 99th
    percentile. max_new_tokens: maximum length of what the subject says.
    """

    types: tuple[TypeName, ...] = ()
    alphas: tuple[Annotated[float, Ge(0)], ...] = (0.5, 2.0, 4.0)
    # Not hashed: what is said with a neuron does not depend on the others.
    neurons_per_type: _Count = not_hashed(6)
    max_new_tokens: AtLeastOne = 64

    def __post_init__(self) -> None:
        if not self.alphas:
            raise ValueError("alphas: give at least one factor, such as 2.0")
        for alpha in self.alphas:
            if not math.isfinite(alpha) or alpha == 1:
                raise ValueError(f"alphas: {alpha:g} is no factor that changes anything")


TYPE_NAMES = ("visual", "text", "multi-modal", "unknown")


def parse_range(text: str) -> tuple[int, int]:
    """Return the first and last layer of a range such as "0-7" or "3". Raises ValueError."""
    first, _, last = text.partition("-")
    last = last or first
    if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
        raise ValueError(f"layers: {text!r} is no range of layers; write first-last, such as 0-7")
    return int(first), int(last)
