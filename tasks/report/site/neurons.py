"""Write the details of each neuron of the site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import NEIGHBORS
from neuron_atlas.tasks.report.controls import strongest_control
from neuron_atlas.tasks.report.inputs import (
    LayerFiles,
    SampleFiles,
    Slot,
    by_neuron,
    read_neurons,
    read_slots,
    read_types,
)
from neuron_atlas.tasks.report.meanings import read_meanings
from neuron_atlas.tasks.report.record import NeuronRecord, ScoredExplanation, read_records
from neuron_atlas.tasks.report.settings import SiteSettings
from neuron_atlas.tasks.report.site.facts import STATISTICS, neuron_facts
from neuron_atlas.tasks.report.site.held_out import read_held_out
from neuron_atlas.tasks.report.site.layout import CHUNK, SitePart, data_file, neurons_key
from neuron_atlas.tasks.report.site.near import near_neurons
from neuron_atlas.tasks.report.site.script import round_significant, write_script
from neuron_atlas.tasks.report.site.traces import draw_traces

_NOT_HELD_OUT: Mapping[str, Any] = {"samples": [], "simulated": []}
_EXPLANATION_COLUMNS = (
    "explainer",
    "status",
    "text",
    "evidence_for",
    "evidence_against",
    "reason",
    "model",
)


def write_neurons(
    site: Path,
    part: SitePart,
    files: LayerFiles,
    samples: SampleFiles,
    settings: SiteSettings,
    level: float | None,
) -> set[int]:
    """Write the details of a part's neurons, `CHUNK` per file. Return the ids of their samples.

    level: the run's false discovery rate, for verdicts.
    """
    neurons = read_types(files)["neuron"].slice(part.start, part.stop - part.start).to_pylist()
    records = read_records(
        files,
        neurons,
        samples.open_layouts,
        settings.exemplars,
        settings.exemplars_of_unexplained,
        STATISTICS,
        level,
    )
    ranked = read_slots(files, neurons)
    held_out = read_held_out(files, records, samples, settings.held_out)
    heats = _draw(records)
    meanings = read_meanings(files, neurons)
    near = by_neuron(read_neurons(files, NEIGHBORS, neurons))
    sample_ids: set[int] = set()

    def describe(record: NeuronRecord) -> dict[str, Any]:
        drawn = settings.exemplars if record.explanations else settings.exemplars_of_unexplained
        slots = ranked[record.neuron][: max(drawn, settings.total_exemplars)]
        held = held_out.get(record.neuron, _NOT_HELD_OUT)
        sample_ids.update(slot.sample_id for slot in slots)
        sample_ids.update(row[0] for row in held["samples"])
        details = _describe(record, slots[:drawn], slots[drawn:], heats)
        shown = {slot.sample_id for slot in slots}
        for one in details["explanations"]:
            its = meanings.get(record.neuron, {}).get(one["explainer"])
            if its:
                one["meanings"] = [_meaning(row, shown) for row in its]
        return details | {"held_out": held, "near": near_neurons(near.get(record.neuron, ()))}

    _write_chunks(site, part, map(describe, records.values()))
    return sample_ids


def _draw(records: Mapping[int, NeuronRecord]) -> dict[tuple[int, int], tuple[str, str]]:
    """Return `encode_trace` of all exemplars, by neuron and sample id."""
    stored = [
        (record.neuron, one, one.trace)
        for record in records.values()
        for one in record.exemplars
        if one.trace is not None
    ]
    if not stored:
        return {}
    catalog = stored[0][1].catalog
    drawn = draw_traces(
        [trace for _, _, trace in stored], [one.scale for _, one, _ in stored], catalog
    )
    keys = [(neuron, one.sample_id) for neuron, one, _ in stored]
    return dict(zip(keys, drawn, strict=True))


def _describe(
    record: NeuronRecord,
    strong: Sequence[Slot],
    weaker: Sequence[Slot],
    heats: Mapping[tuple[int, int], tuple[str, str]],
) -> dict[str, Any]:
    return {
        "neuron": record.neuron,
        **({"part": record.part} if record.part else {}),
        "type": record.type,
        "shares": [round_significant(share, 3) or 0 for share in record.shares.values()],
        "n_exemplars": record.row["n_exemplars"],
        "scale": round_significant(record.row["scale"], 6),
        **neuron_facts(record),
        "exemplars": [
            [one, round_significant(peak), role, *heats.get((record.neuron, one), ("", ""))]
            for one, peak, role, _ in strong
        ],
        "weaker": [[one, round_significant(peak), role] for one, peak, role, _ in weaker],
        "explanations": [_explanation(scored) for scored in record.explanations],
    }


def _explanation(scored: ScoredExplanation) -> dict[str, Any]:
    """Return an explanation with its scores, without empty values.

    verdict: its word and numbers, for a score over all tokens that has one. strongest: the
    strongest control as its column, value and words.
    """
    row = scored.explanation
    omitted = ("layer", "neuron", "type", "explainer")
    return {
        **{name: row[name] or "" for name in _EXPLANATION_COLUMNS},
        "confidence": round_significant(row["confidence"], 3),
        **_faithfulness(scored.faithfulness),
        "scores": [
            {
                name: round_significant(value) if isinstance(value, float) else value
                for name, value in score.items()
                if name not in omitted and value is not None and value != ""
            }
            | _verdict(scored, score)
            | _strongest(score)
            for score in scored.scores
        ],
    }


def _meaning(row: Mapping[str, Any], shown: set[int]) -> dict[str, Any]:
    """Return a meaning with its scores. samples: those of its exemplars that the site shows."""
    names = ("meaning", "n_exemplars", "text", "status", "reason")
    return {
        **{name: row[name] for name in names},
        "samples": [one for one in row["sample_ids"] if one in shown],
        "scores": [
            {
                name: round_significant(value) if isinstance(value, float) else value
                for name, value in score.items()
                if name not in ("neuron", "explainer", "meaning") and value is not None
            }
            for score in row["scores"]
        ],
    }


def _faithfulness(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the measures of faithfulness that are known; empty for a run without effects."""
    if row is None:
        return {}
    names = ("faithfulness", "own_change", "other_change", "q", "agreement", "agreement_other")
    found = {name: round_significant(row[name]) for name in names if row[name] is not None}
    known = {"words": row["words"] or [], "n_samples": row["n_samples"], "status": row["status"]}
    return {"faithful": found | known}


def _verdict(scored: ScoredExplanation, score: Mapping[str, Any]) -> dict[str, Any]:
    verdict = scored.verdict(score) if score["tokens"] == "all" else None
    return {} if verdict is None else {"verdict": [verdict.word, verdict.numbers]}


def _strongest(score: Mapping[str, Any]) -> dict[str, Any]:
    control = strongest_control(score)
    if control is None:
        return {}
    return {"strongest": [control.name, round_significant(control.value), control.words]}


def _write_chunks(site: Path, part: SitePart, details: Iterator[dict[str, Any]]) -> None:
    for first in range(part.start, part.stop, CHUNK):
        key = neurons_key(part.layer, first)
        rows = [next(details) for _ in range(first, min(first + CHUNK, part.stop))]
        write_script(site / data_file(key), key, rows)
