"""Conditions of the subject: which set of neurons is changed, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_atlas.tasks.effects.intervention import Intervention
from neuron_atlas.tasks.groups.sets import INTACT, TARGET, Ablation, NeuronSet
from neuron_atlas.tasks.groups.settings import GroupSettings, SteeringSettings


@dataclass(frozen=True)
class Condition:
    """A set of neurons and what happens to it.

    alpha: factor of its activations; 0 ablates them. ablation: whether alpha 0 sets them to 0 or to
    their means.
    """

    neurons: NeuronSet
    alpha: float = 0.0
    ablation: Ablation = "zero"

    @property
    def key(self) -> dict[str, Any]:
        """Its columns in the tables."""
        group = self.neurons.group
        return {
            "group": group.name,
            "share": group.share,
            "first_layer": group.first_layer,
            "last_layer": group.last_layer,
            "draw": self.neurons.draw,
            "alpha": self.alpha,
        }

    def interventions(self, rows: Sequence[int] | None = None) -> list[Intervention]:
        """Return its interventions. rows: of the batch; None for all."""
        where = None if rows is None else tuple(rows)
        changed = self.neurons.neurons.items()
        if self.alpha:
            return [Intervention(at, some, "scale", self.alpha, where) for at, some in changed]
        if self.ablation == "zero":
            return [Intervention(at, some, "zero", 0.0, where) for at, some in changed]
        means = self.neurons.values
        return [Intervention(at, some, "set", means[at], where) for at, some in changed]


def intact() -> Condition:
    """Return the condition without any change."""
    nothing: Mapping[int, Any] = {}
    return Condition(NeuronSet(INTACT, TARGET, nothing, nothing, nothing, nothing), 1.0)


def ablated(sets: Iterable[NeuronSet], ablation: Ablation) -> list[Condition]:
    """Return the intact subject, then the ablation of each set."""
    return [intact(), *(Condition(one, 0.0, ablation) for one in sets)]


def steered(
    sets: Sequence[NeuronSet], groups: GroupSettings, steering: SteeringSettings
) -> list[Condition]:
    """Return the intact subject, then each group that is steered, with its random sets, scaled by
    each factor; and the other types, without random sets.

    Types have the largest share, over the first range of layers.
    """
    types = [one for one in sets if one.group.name not in groups.named_groups]
    largest = max((one.group.share for one in types), default=0.0)
    types = [one for one in types if one.group.share == largest]
    places = dict.fromkeys((one.group.first_layer, one.group.last_layer) for one in types)
    first = next(iter(places), None)
    types = [one for one in types if (one.group.first_layer, one.group.last_layer) == first]
    spoken = {name for name, one in groups.named_groups.items() if one.words}
    full = [one for one in types if one.group.name in steering.types]
    full += [one for one in sets if one.group.name in spoken]
    others = [one for one in types if one not in full and one.draw == TARGET]
    return scaled([*full, *others], steering.alphas)


def scaled(sets: Iterable[NeuronSet], alphas: Sequence[float]) -> list[Condition]:
    """Return the intact subject, then each set scaled by each factor."""
    return [intact(), *(Condition(one, alpha) for one in sets for alpha in alphas)]
