"""Real beside simulated: what a neuron did on samples that its explainer never saw, and what each
explanation of it says it would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts.regions import View
from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.report.site.script import short
from neuron_atlas.tasks.report.site.traces import TraceTable, drawn_bytes, trace_table

DRAWS = ("exemplar", "random")


def choose_held_out(simulated: pa.Table, count: int) -> dict[int, dict[int, str]]:
    """Of each neuron up to `count` sample ids with why they are there: half of them exemplars,
    half drawn at random, each spread evenly over those that were simulated.

    simulated: rows of `simulations`, of one layer and the scorer's samples, in the order of the
    evidence (exemplars strongest first).
    """
    pools: dict[int, dict[str, dict[int, None]]] = {}
    rows = simulated.select(["neuron", "sample_id", "draw"]).to_pylist()
    for row in rows:
        pool = pools.setdefault(row["neuron"], {draw: {} for draw in DRAWS})
        pool[row["draw"]][row["sample_id"]] = None
    halves = dict(zip(DRAWS, ((count + 1) // 2, count // 2), strict=True))
    return {
        neuron: {
            sample_id: draw
            for draw in DRAWS
            for sample_id in _spread(list(pool[draw]), halves[draw])
        }
        for neuron, pool in pools.items()
    }


class BesideSimulated:
    """Lays the predictions of every explainer and simulator beside the real traces."""

    def __init__(
        self,
        simulated: pa.Table,
        held_out: Mapping[int, Mapping[int, str]],
        real: Sequence[TraceTable],
        views: Mapping[int, View],
    ):
        """real: where true traces are found, of exemplars and of random samples."""
        self._held_out = held_out
        self._real = real
        self._views = views
        self._predicted: list[tuple[str, str, TraceTable]] = []
        pairs = simulated.group_by(["explainer", "simulator"]).aggregate([]).to_pylist()
        for explainer, simulator in sorted((row["explainer"], row["simulator"]) for row in pairs):
            mine = simulated.filter(
                (pa.compute.field("explainer") == explainer)
                & (pa.compute.field("simulator") == simulator)
            )
            self._predicted.append((explainer, simulator, trace_table(mine)))

    def of(self, neuron: int, scale: float) -> dict[str, Any]:
        """The neuron's held-out samples, and a list of predictions for them of each pair.

        Real traces are drawn as the exemplars are. A prediction has no unit, so its own highest
        over all of the neuron's held-out samples stands for 10. r: the signed correlation with
        the real trace over the tokens of that sample alone; null where one of them is constant.
        """
        chosen = self._held_out.get(neuron, {})
        real: dict[int, ActivationRecord] = {}
        for table in self._real:
            real = table.of(neuron) | real
        known = [sample_id for sample_id in chosen if sample_id in real]
        return {
            "samples": [
                [
                    sample_id,
                    chosen[sample_id],
                    *drawn_bytes(real[sample_id], scale, self._views.get(sample_id)),
                    short(_peak(real[sample_id])),
                ]
                for sample_id in known
            ],
            "simulated": [
                {
                    "explainer": explainer,
                    "simulator": simulator,
                    "traces": self._drawn(table.of(neuron), known, real),
                }
                for explainer, simulator, table in self._predicted
                if neuron in table.rows
            ],
        }

    def _drawn(
        self,
        predicted: Mapping[int, ActivationRecord],
        known: Sequence[int],
        real: Mapping[int, ActivationRecord],
    ) -> list[list[Any] | None]:
        highest = max((_peak(seen) for seen in predicted.values()), default=0.0)
        return [
            [
                *drawn_bytes(predicted[sample_id], highest, self._views.get(sample_id)),
                short(_correlation(predicted[sample_id], real[sample_id]), 3),
            ]
            if sample_id in predicted
            else None
            for sample_id in known
        ]


def _spread(ids: Sequence[int], count: int) -> list[int]:
    count = min(count, len(ids))
    return [ids[(2 * place + 1) * len(ids) // (2 * count)] for place in range(count)]


def _peak(seen: ActivationRecord) -> float:
    tokens = np.concatenate([seen.visual, seen.text]).astype(np.float64)
    return float(np.nan_to_num(tokens).max(initial=0.0))


def _correlation(one: ActivationRecord, other: ActivationRecord) -> float | None:
    first, second = (
        np.concatenate([seen.visual, seen.text]).astype(np.float64) for seen in (one, other)
    )
    if len(first) != len(second) or len(first) < 2:
        return None
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / length) if length > 1e-12 else None
