"""Which neurons of a layer have evidence, and which ones need some."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

Ranks = tuple[int, int]
"""First rank, and the rank after the last one."""


@dataclass(frozen=True)
class Wanted:
    """Neurons of one layer that need evidence.

    explained: neurons that need all of their evidence. shown: ranks of the exemplars that pages
    show, for neurons that are not explained.
    """

    explained: tuple[int, ...] = ()
    shown: Mapping[int, Ranks] = field(default_factory=dict)

    @property
    def neurons(self) -> list[int]:
        """All neurons, ascending."""
        return sorted({*self.explained, *self.shown})

    @property
    def digest(self) -> str:
        """Short hash, for the names of files."""
        return hashlib.sha256(repr(self.to_json()).encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """Return plain data, with neurons as spans such as "0-511,600"."""
        by_ranks: dict[Ranks, list[int]] = {}
        for neuron, ranks in self.shown.items():
            by_ranks.setdefault(ranks, []).append(neuron)
        return {
            "explained": _spans(self.explained),
            "shown": {f"{a}-{b}": _spans(by_ranks[a, b]) for a, b in sorted(by_ranks)},
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Wanted:
        """Return the neurons that `to_json` wrote."""
        shown: dict[int, Ranks] = {}
        for ranks, neurons in data["shown"].items():
            first, stop = map(int, ranks.split("-"))
            shown |= dict.fromkeys(_numbers(neurons), (first, stop))
        return Wanted(tuple(_numbers(data["explained"])), shown)


def missing_evidence(wanted: Wanted, stored: Sequence[Wanted]) -> Wanted:
    """Return what of `wanted` is not in `stored`, the content of a layer's files."""
    explained = {neuron for one in stored for neuron in one.explained}
    depth: dict[int, int] = {}
    for one in stored:
        for neuron, (_, stop) in one.shown.items():
            depth[neuron] = max(depth.get(neuron, 0), stop)
    return Wanted(
        tuple(neuron for neuron in wanted.explained if neuron not in explained),
        {
            neuron: (max(first, depth.get(neuron, 0)), stop)
            for neuron, (first, stop) in wanted.shown.items()
            if neuron not in explained and depth.get(neuron, 0) < stop
        },
    )


def _spans(numbers: Iterable[int]) -> str:
    spans = []
    for _, run in groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        spans.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ",".join(spans)


def _numbers(spans: str) -> list[int]:
    numbers: list[int] = []
    for span in filter(None, spans.split(",")):
        first, _, last = span.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers
