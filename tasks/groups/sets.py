"""Choose the neurons of each group, and random sets that match them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts.grouped import GROUP_SETS
from neuron_atlas.tasks.groups.members import Members
from neuron_atlas.tasks.groups.settings import GroupSettings, NamedGroup, parse_range

TARGET = -1
"""The draw of a group itself."""
_BINS = 10
"""Bins of a layer's neurons by activation norm, within which random sets are matched."""

Ablation = Literal["zero", "mean"]


@dataclass(frozen=True)
class Group:
    """A group of neurons, by its key in the tables. share: 0 for a named group."""

    name: str
    share: float
    first_layer: int
    last_layer: int


INTACT = Group("", 0.0, -1, -1)
"""No group: the intact subject."""


@dataclass(frozen=True)
class NeuronSet:
    """A group's neurons, or a random set that matches them.

    draw: number of the random set; TARGET for the group itself. neurons: by layer, ascending.
    values: the neurons' mean activations, likewise, for ablation to the mean. norm: mean activation
    norm of each layer's neurons. overlap: share of each layer's neurons that are in the group.
    """

    group: Group
    draw: int
    neurons: Mapping[int, tuple[int, ...]]
    values: Mapping[int, tuple[float, ...]]
    norm: Mapping[int, float]
    overlap: Mapping[int, float]

    @property
    def n_neurons(self) -> int:
        """Number of neurons in all layers."""
        return sum(map(len, self.neurons.values()))


def choose_all_sets(members: Sequence[Members], settings: GroupSettings) -> list[NeuronSet]:
    """Return all groups with their random sets. Groups without neurons are left out.

    Raises ValueError for a named neuron that was not captured.
    """
    captured = [one.layer for one in members]
    ranges = [parse_range(one) for one in settings.layers or ()] or [(captured[0], captured[-1])]
    groups: list[tuple[Group, dict[int, np.ndarray]]] = []
    for first, last in ranges:
        some = [one for one in members if first <= one.layer <= last]
        for kind in settings.types:
            for share in settings.shares:
                groups.append((Group(kind, share, first, last), choose_group(some, kind, share)))
    for name, named in settings.named_groups.items():
        chosen = choose_named(members, named)
        groups.append((Group(name, 0.0, min(chosen), max(chosen)), chosen))
    return [
        one
        for group, chosen in groups
        if chosen
        for one in matched_sets(members, group, chosen, settings.random_sets, settings.seed)
    ]


def choose_group(members: Sequence[Members], name: str, share: float) -> dict[int, np.ndarray]:
    """Return the rows of a type's neurons to change, by layer; layers without any are left out.

    Of each layer `share` of its neurons, or all neurons of the type if there are fewer. Neurons
    with the largest share of exemplars of the type come first.
    """
    chosen = {}
    for one in members:
        rows = np.flatnonzero(one.types == name)
        count = min(len(rows), max(1, round(share * len(one.neurons))))
        order = np.lexsort([one.neurons[rows], -one.shares[rows]])
        if count:
            chosen[one.layer] = np.sort(rows[order[:count]])
    return chosen


def choose_named(members: Sequence[Members], named: NamedGroup) -> dict[int, np.ndarray]:
    """Return the rows of a named group's neurons by layer.

    Raises ValueError for a neuron that was not captured.
    """
    by_layer = {one.layer: one for one in members}
    chosen = {}
    for layer, neurons in named.by_layer().items():
        if layer not in by_layer:
            known = ", ".join(map(str, sorted(by_layer)))
            raise ValueError(f"neurons: layer {layer} was not captured; captured layers: {known}")
        known_neurons = by_layer[layer].neurons
        rows = np.searchsorted(known_neurons, neurons)
        for row, neuron in zip(rows.tolist(), neurons, strict=True):
            if row == len(known_neurons) or known_neurons[row] != neuron:
                raise ValueError(
                    f"neurons: there is no neuron {layer}:{neuron}; layer {layer} has neurons 0 "
                    f"to {known_neurons[-1]}"
                )
        chosen[layer] = rows
    return chosen


def matched_sets(
    members: Sequence[Members],
    group: Group,
    chosen: Mapping[int, np.ndarray],
    count: int,
    seed: int,
) -> Iterator[NeuronSet]:
    """Yield the group, then `count` random sets that match it.

    A random set has as many neurons in each layer, and in each of 10 bins of the layer's neurons by
    activation norm. It is drawn from all neurons of the layer, also those of the group: if the
    group were itself a random choice, it would be one more such set. So the group's rank among them
    gives an exact p-value.
    """
    by_layer = {one.layer: one for one in members}
    yield _set(by_layer, group, TARGET, chosen, chosen)
    for draw in range(count):
        rng = _random(seed, group, draw)
        drawn = {
            layer: np.sort(_draw(by_layer[layer].norms, rows, rng))
            for layer, rows in chosen.items()
        }
        yield _set(by_layer, group, draw, drawn, chosen)


def sets_table(sets: Sequence[NeuronSet]) -> pa.Table:
    """Return rows of `group_sets`."""
    rows = [
        {
            "group": one.group.name,
            "share": one.group.share,
            "first_layer": one.group.first_layer,
            "last_layer": one.group.last_layer,
            "draw": one.draw,
            "layer": layer,
            "neurons": list(neurons),
            "norm": one.norm[layer],
            "overlap": one.overlap[layer],
        }
        for one in sets
        for layer, neurons in one.neurons.items()
    ]
    return pa.Table.from_pylist(rows, schema=GROUP_SETS.schema)


def _random(seed: int, group: Group, draw: int) -> np.random.Generator:
    """Return a generator that depends on no other group or set."""
    digest = hashlib.blake2b(f"{seed}:{draw}:{group}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _draw(norms: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bins = norm_bins(norms)
    counts = np.bincount(bins[rows], minlength=_BINS)
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(bins == number), size=count, replace=False)
            for number, count in enumerate(counts)
            if count
        ]
    )


def norm_bins(norms: np.ndarray) -> np.ndarray:
    """Return the bin of each neuron by its norm: int64, bins of about equal size."""
    ranks = np.empty(len(norms), np.int64)
    ranks[np.argsort(norms, kind="stable")] = np.arange(len(norms))
    return ranks * _BINS // max(1, len(norms))


def _set(
    by_layer: Mapping[int, Members],
    group: Group,
    draw: int,
    rows: Mapping[int, np.ndarray],
    target: Mapping[int, np.ndarray],
) -> NeuronSet:
    return NeuronSet(
        group,
        draw,
        {layer: tuple(by_layer[layer].neurons[some].tolist()) for layer, some in rows.items()},
        {layer: tuple(by_layer[layer].means[some].tolist()) for layer, some in rows.items()},
        {layer: float(by_layer[layer].norms[some].mean()) for layer, some in rows.items()},
        {layer: float(np.isin(some, target[layer]).mean()) for layer, some in rows.items()},
    )


def read_sets(table: pa.Table, members: Sequence[Members]) -> list[NeuronSet]:
    """Return the sets in rows of `group_sets`, in their order. members: for the neurons' mean
    activations; empty if these are not needed."""
    means = {one.layer: dict(zip(one.neurons.tolist(), one.means, strict=True)) for one in members}
    found: dict[tuple[Group, int], list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        group = Group(row["group"], row["share"], row["first_layer"], row["last_layer"])
        found.setdefault((group, row["draw"]), []).append(row)
    return [
        NeuronSet(
            group,
            draw,
            {row["layer"]: tuple(row["neurons"]) for row in some},
            {
                row["layer"]: tuple(float(means[row["layer"]][one]) for one in row["neurons"])
                for row in some
                if means
            },
            {row["layer"]: row["norm"] for row in some},
            {row["layer"]: row["overlap"] for row in some},
        )
        for (group, draw), some in found.items()
    ]
