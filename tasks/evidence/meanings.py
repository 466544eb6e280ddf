"""Restrict the evidence of neurons to single meanings: to the exemplars of one cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from neuron_atlas.tasks.evidence.evidence import Evidence

Members = Mapping[int, Mapping[int, frozenset[int]]]
"""Sample_ids of the exemplars of each meaning, by neuron and meaning, ascending."""


def read_members(meanings: pa.Table) -> Members:
    """Return the members of the meanings of one layer's neurons. meanings: rows of `meanings`."""
    found: dict[int, dict[int, set[int]]] = {}
    rows = zip(
        *(meanings[name].to_pylist() for name in ("neuron", "meaning", "sample_id")), strict=True
    )
    for neuron, meaning, sample_id in sorted(rows):
        found.setdefault(neuron, {}).setdefault(meaning, set()).add(sample_id)
    return {
        neuron: {meaning: frozenset(ids) for meaning, ids in its.items()}
        for neuron, its in found.items()
    }


def split_by_meaning(evidence: Sequence[Evidence], members: Members) -> list[tuple[int, Evidence]]:
    """Return each meaning of each neuron, with the evidence without exemplars of other meanings.

    Random samples and near misses stay: they are no exemplars of the neuron.
    """
    return [
        (
            meaning,
            replace(
                one, exemplars=tuple(each for each in one.exemplars if each.sample_id in sample_ids)
            ),
        )
        for one in evidence
        for meaning, sample_ids in members.get(one.neuron, {}).items()
    ]
