"""Read real and simulated activations of neurons on samples that the explainers never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import EVIDENCE, SIMULATIONS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, activation_records
from neuron_atlas.tasks.report.inputs import LayerFiles, SampleFiles, read_neurons
from neuron_atlas.tasks.report.record import NeuronRecord
from neuron_atlas.tasks.report.site.script import round_significant
from neuron_atlas.tasks.report.site.traces import draw_traces
from neuron_atlas.tasks.samples.catalog import Catalog

DRAWS = ("exemplar", "random")
_COLUMNS = ("neuron", "explainer", "simulator", "sample_id", "stratum", "visual", "text")
_OWN = (
    ("explanation", "==", "own"),
    ("purpose", "==", "scorer"),
    ("status", "==", "ok"),
    ("stratum", "in", list(DRAWS)),
)


def read_held_out(
    files: LayerFiles, records: Mapping[int, NeuronRecord], samples: SampleFiles, count: int
) -> dict[int, dict[str, Any]]:
    """Return up to `count` held-out samples of each neuron, with the predictions for them.

    Neurons without simulations are left out. samples: [sample id, exemplar or random, image bytes,
    text bytes, peak], drawn on the scale of the exemplars. simulated: for each explainer and
    simulator, a list of [image bytes, text bytes, r], or null for a sample without a prediction. A
    prediction has no unit: its maximum over the neuron's held-out samples maps to 10. r: signed
    correlation with the real trace over the tokens of that sample; null if either is constant.
    """
    neurons = list(records) if count else []
    simulated = read_neurons(files, SIMULATIONS, neurons, _COLUMNS, _OWN)
    chosen = choose_held_out(simulated, count)
    sample_ids = {sample_id for draws in chosen.values() for sample_id in draws}
    only = [("purpose", "==", "scorer"), ("sample_id", "in", sorted(sample_ids))]
    columns = ["neuron", "sample_id", "visual", "text"]
    real = _by(("neuron",), read_neurons(files, EVIDENCE, chosen, columns, only))
    catalog = samples.open_layouts(sample_ids)
    held_out: dict[int, dict[str, Any]] = {}
    shown = {
        (neuron, one): (real[neuron,][one], records[neuron].scale)
        for neuron, draws in chosen.items()
        for one in draws
        if one in real.setdefault((neuron,), {})
    }
    drawn = _draw(shown, catalog)
    for neuron, draws in chosen.items():
        rows = [
            [one, draw, *drawn[neuron, one], round_significant(_peak(real[neuron,][one]))]
            for one, draw in draws.items()
            if (neuron, one) in drawn
        ]
        held_out[neuron] = {"samples": rows, "simulated": []}
    predicted = _by(("neuron", "explainer", "simulator"), simulated)
    highest = {key: max(map(_peak, traces.values())) for key, traces in predicted.items()}
    drawn_predictions = _draw(
        {
            (*key, one): (predicted[key][one], highest[key])
            for key in predicted
            for one, *_ in held_out[key[0]]["samples"]
            if one in predicted[key]
        },
        catalog,
    )
    for key in sorted(predicted):
        neuron, explainer, simulator = key
        traces = [
            [
                *drawn_predictions[*key, one],
                round_significant(_correlation(predicted[key][one], real[neuron,][one]), 3),
            ]
            if one in predicted[key]
            else None
            for one, *_ in held_out[neuron]["samples"]
        ]
        held_out[neuron]["simulated"].append(
            {"explainer": explainer, "simulator": simulator, "traces": traces}
        )
    return held_out


def _draw(
    traces: Mapping[tuple[Any, ...], tuple[ActivationRecord, float]], catalog: Catalog
) -> dict[tuple[Any, ...], tuple[str, str]]:
    """Return `encode_trace` of traces with their scales, by the same keys."""
    records, scales = [one for one, _ in traces.values()], [scale for _, scale in traces.values()]
    return dict(zip(traces, draw_traces(records, scales, catalog), strict=True))


def choose_held_out(simulated: pa.Table, count: int) -> dict[int, dict[int, str]]:
    """Choose up to `count` sample ids per neuron, each with its draw (exemplar or random).

    Half of them are exemplars and half are random samples, each spread evenly over the simulated
    ones. simulated: rows of `simulations` of one layer and the scorer's samples, in the order of
    the evidence (exemplars strongest first).
    """
    pools: dict[int, dict[str, dict[int, None]]] = {}
    rows = simulated.select(["neuron", "sample_id", "stratum"]).to_pylist()
    for row in rows:
        pool = pools.setdefault(row["neuron"], {draw: {} for draw in DRAWS})
        pool[row["stratum"]][row["sample_id"]] = None
    halves = dict(zip(DRAWS, ((count + 1) // 2, count // 2), strict=True))
    return {
        neuron: {
            sample_id: draw
            for draw in DRAWS
            for sample_id in _spread(list(pool[draw]), halves[draw])
        }
        for neuron, pool in pools.items()
    }


def _by(keys: Sequence[str], table: pa.Table) -> dict[tuple[Any, ...], dict[int, ActivationRecord]]:
    """Group traces by the columns `keys` and by sample id."""
    found: dict[tuple[Any, ...], dict[int, ActivationRecord]] = {}
    columns = (table[name].to_pylist() for name in keys)
    for *key, trace in zip(*columns, activation_records(table), strict=True):
        found.setdefault(tuple(key), {})[trace.sample_id] = trace
    return found


def _spread(ids: Sequence[int], count: int) -> list[int]:
    count = min(count, len(ids))
    return [ids[(2 * index + 1) * len(ids) // (2 * count)] for index in range(count)]


def _tokens(trace: ActivationRecord) -> np.ndarray:
    return np.concatenate([trace.visual, trace.text]).astype(np.float64)


def _peak(trace: ActivationRecord) -> float:
    peaks = (np.fmax.reduce(values, initial=0) for values in (trace.visual, trace.text))
    return float(max(peaks))


def _correlation(one: ActivationRecord, other: ActivationRecord) -> float | None:
    first, second = _tokens(one), _tokens(other)
    if len(first) != len(second) or len(first) < 2:
        return None
    first, second = first - first.mean(), second - second.mean()
    length = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / length) if length > 1e-12 else None
