"""All that the site says of each neuron."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    NO_SAMPLE,
    RANDOM_TRACES,
    TRACES,
    TYPE_COLUMNS,
    exemplars,
)
from neuron_atlas.tasks.artifacts.regions import View
from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.report.settings import SiteSettings
from neuron_atlas.tasks.report.site.facts import neuron_facts
from neuron_atlas.tasks.report.site.held_out import BesideSimulated, choose_held_out
from neuron_atlas.tasks.report.site.inputs import (
    LayerFiles,
    SampleFiles,
    SitePart,
    explained_rows,
    read_neurons,
    read_types,
    scored_rows,
    simulated_traces,
)
from neuron_atlas.tasks.report.site.layout import CHUNK, data_file, neurons_key
from neuron_atlas.tasks.report.site.script import short, write_script
from neuron_atlas.tasks.report.site.traces import drawn_bytes, read_views, trace_table

_Slot = tuple[int, float, int]
"""An exemplar: its sample id, its peak, and 0 for a peak in the image, 1 for one in the text."""


def write_neurons(
    site: Path,
    part: SitePart,
    files: LayerFiles,
    samples: SampleFiles,
    settings: SiteSettings,
    top_n: int,
) -> set[int]:
    """Write the details of a part's neurons, `CHUNK` a file; gives the sample ids they show.

    top_n: the exemplars that were captured of each neuron.
    """
    types = read_types(files).slice(part.start, part.stop - part.start)
    neurons = types["neuron"].to_pylist()
    explained = explained_rows(files, neurons)
    drawn = {
        neuron: settings.exemplars if neuron in explained else settings.exemplars_of_others
        for neuron in neurons
    }
    ranked = _ranked(files, neurons, top_n)
    simulated = simulated_traces(files, neurons if settings.held_out else [])
    held_out = choose_held_out(simulated, settings.held_out)
    traces = trace_table(
        read_neurons(files.captured["traces"], TRACES, neurons if any(drawn.values()) else [])
    )
    random = trace_table(
        read_neurons(files.captured["random_traces"], RANDOM_TRACES, neurons if held_out else [])
    )
    with_heat = {
        neuron: {*(slot[0] for slot in ranked[neuron][: drawn[neuron]]), *held_out.get(neuron, {})}
        for neuron in neurons
    }
    views = read_views(samples.descriptions, set().union(*with_heat.values()))
    beside = BesideSimulated(simulated, held_out, (traces, random), views)
    scored = scored_rows(files, neurons)
    facts = neuron_facts(files, neurons)

    def describe(row: Mapping[str, Any]) -> dict[str, Any]:
        neuron, scale = row["neuron"], row["scale"] or 0.0
        strong = ranked[neuron][: drawn[neuron]]
        mine = traces.of(neuron)
        weaker = ranked[neuron][drawn[neuron] : settings.listed]
        return {
            "neuron": neuron,
            "type": row["type"],
            "shares": [short(row[name], 3) or 0 for name in TYPE_COLUMNS.values()],
            "n_exemplars": row["n_exemplars"],
            "scale": short(row["scale"], 6),
            **facts[neuron],
            "exemplars": [_exemplar(slot, mine, scale, views) for slot in strong],
            "weaker": [[sample_id, short(peak), role] for sample_id, peak, role in weaker],
            "accounts": _accounts(explained.get(neuron, []), scored.get(neuron, [])),
            "held_out": beside.of(neuron, scale),
        }

    _write_chunks(site, part, map(describe, types.to_pylist()))
    listed = (slot[0] for neuron in neurons for slot in ranked[neuron][: settings.listed])
    return set(listed).union(*with_heat.values())


def _write_chunks(site: Path, part: SitePart, details: Iterator[dict[str, Any]]) -> None:
    for first in range(part.start, part.stop, CHUNK):
        key = neurons_key(part.layer, first)
        rows = [next(details) for _ in range(first, min(first + CHUNK, part.stop))]
        write_script(site / data_file(key), key, rows)


def _ranked(files: LayerFiles, neurons: Sequence[int], top_n: int) -> dict[int, list[_Slot]]:
    """Of each neuron its strongest samples."""
    table = read_neurons(files.captured["exemplars"], exemplars(top_n), neurons)
    columns = [
        _values(table[name]).reshape(-1, top_n).tolist()
        for name in ("sample_id", "peak", "peak_role")
    ]
    ranked: dict[int, list[_Slot]] = {neuron: [] for neuron in neurons}
    for neuron, *slots in zip(table["neuron"].to_pylist(), *columns, strict=True):
        ranked[neuron] = [slot for slot in zip(*slots, strict=True) if slot[0] != NO_SAMPLE]
    return ranked


def _values(column: pa.ChunkedArray) -> Any:
    return column.combine_chunks().flatten().to_numpy(zero_copy_only=False)


def _exemplar(
    slot: _Slot, traces: Mapping[int, ActivationRecord], scale: float, views: Mapping[int, View]
) -> list[Any]:
    sample_id, peak, role = slot
    seen = traces.get(sample_id)
    heat = ("", "") if seen is None else drawn_bytes(seen, scale, views.get(sample_id))
    return [sample_id, short(peak), role, *heat]


def _accounts(
    explanations: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What each explainer said, with its scores."""
    names = dict.fromkeys(row["explainer"] for row in (*explanations, *scores))
    said = {row["explainer"]: row for row in explanations}
    return [
        {
            **_said(name, said.get(name)),
            "scores": [_score(row) for row in scores if row["explainer"] == name],
        }
        for name in names
    ]


def _said(name: str, row: Mapping[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"explainer": name, "status": "missing"}
    kept = ("explainer", "status", "text", "evidence_for", "evidence_against", "reason", "model")
    return {key: row[key] or "" for key in kept} | {"confidence": short(row["confidence"], 3)}


def _score(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `scores` without what is empty."""
    return {
        name: short(value) if isinstance(value, float) else value
        for name, value in row.items()
        if name not in ("neuron", "explainer") and value is not None and value != ""
    }
