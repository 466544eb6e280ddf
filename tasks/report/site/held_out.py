"""Real beside simulated: what a neuron did on samples that its explainer never saw, and what each
explanation of it says it would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import RANDOM_TRACES, SIMULATIONS, TRACES
from neuron_atlas.tasks.evidence.evidence import Excitation, excitations
from neuron_atlas.tasks.report.inputs import LayerFiles, SampleFiles, read_neurons
from neuron_atlas.tasks.report.record import NeuronRecord
from neuron_atlas.tasks.report.site.script import short
from neuron_atlas.tasks.report.site.traces import drawn_bytes

DRAWS = ("exemplar", "random")
_COLUMNS = ("neuron", "explainer", "simulator", "sample_id", "draw", "visual", "text")
_OWN = (("claim", "==", "own"), ("purpose", "==", "scorer"), ("status", "==", "ok"))


def read_held_out(
    files: LayerFiles, records: Mapping[int, NeuronRecord], samples: SampleFiles, count: int
) -> dict[int, dict[str, Any]]:
    """Of each neuron up to `count` held-out samples, and predictions for them.

    Neurons that were not simulated are left out. simulated: a list for each explainer and
    simulator. Real traces are drawn as the exemplars are. A prediction has no unit, so its own
    highest over all of the neuron's held-out samples stands for 10. r: the signed correlation with
    the real trace over the tokens of that sample alone; null where one of them is constant.
    """
    neurons = list(records) if count else []
    simulated = read_neurons(files, SIMULATIONS, neurons, _COLUMNS, _OWN)
    chosen = choose_held_out(simulated, count)
    sample_ids = {sample_id for draws in chosen.values() for sample_id in draws}
    only = [("sample_id", "in", list(sample_ids))]
    # An exemplar may have been drawn at random too.
    real = _by(("neuron",), read_neurons(files, RANDOM_TRACES, chosen, only=only))
    for key, seen in _by(("neuron",), read_neurons(files, TRACES, chosen, only=only)).items():
        real.setdefault(key, {}).update(seen)
    catalog = samples.open_layouts(sample_ids)
    held_out: dict[int, dict[str, Any]] = {}
    for neuron, draws in chosen.items():
        seen, scale = real.setdefault((neuron,), {}), records[neuron].scale
        rows = [
            [one, draw, *drawn_bytes(seen[one], scale, catalog), short(_peak(seen[one]))]
            for one, draw in draws.items()
            if one in seen
        ]
        held_out[neuron] = {"samples": rows, "simulated": []}
    predicted = _by(("neuron", "explainer", "simulator"), simulated)
    for neuron, explainer, simulator in sorted(predicted):
        guess, seen = predicted[neuron, explainer, simulator], real[neuron,]
        highest = max(map(_peak, guess.values()))
        traces = [
            [
                *drawn_bytes(guess[one], highest, catalog),
                short(_correlation(guess[one], seen[one]), 3),
            ]
            if one in guess
            else None
            for one, *_ in held_out[neuron]["samples"]
        ]
        held_out[neuron]["simulated"].append(
            {"explainer": explainer, "simulator": simulator, "traces": traces}
        )
    return held_out


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


def _by(keys: Sequence[str], table: pa.Table) -> dict[tuple[Any, ...], dict[int, Excitation]]:
    """Traces by the columns `keys`, and by sample."""
    found: dict[tuple[Any, ...], dict[int, Excitation]] = {}
    columns = (table[name].to_pylist() for name in keys)
    for *key, seen in zip(*columns, excitations(table), strict=True):
        found.setdefault(tuple(key), {})[seen.sample_id] = seen
    return found


def _spread(ids: Sequence[int], count: int) -> list[int]:
    count = min(count, len(ids))
    return [ids[(2 * place + 1) * len(ids) // (2 * count)] for place in range(count)]


def _tokens(seen: Excitation) -> np.ndarray:
    return np.concatenate([seen.visual, seen.text]).astype(np.float64)


def _peak(seen: Excitation) -> float:
    return float(np.fmax.reduce(_tokens(seen), initial=0.0))


def _correlation(one: Excitation, other: Excitation) -> float | None:
    first, second = _tokens(one), _tokens(other)
    if len(first) != len(second) or len(first) < 2:
        return None
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / length) if length > 1e-12 else None
