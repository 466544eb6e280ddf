"""Write the report of a run: page, figures, tables and summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from neuron_atlas.tasks.artifacts import (
    DESCRIPTIONS,
    EXPLANATIONS,
    MEANING_EXPLANATIONS,
    MEANING_SCORES,
    NEURON_TYPES,
    SAMPLES,
    SCORE_AGGREGATES,
    SCORES,
    SIMULATIONS,
    read_table,
)
from neuron_atlas.tasks.artifacts.grouped import SAYINGS
from neuron_atlas.tasks.artifacts.nonfinite import nonfinite_outcomes
from neuron_atlas.tasks.report.analysis import read_analysis, write_analysis
from neuron_atlas.tasks.report.clarity import read_clarity, write_clarity
from neuron_atlas.tasks.report.effects import read_effects
from neuron_atlas.tasks.report.figures import draw_figures, write_figures
from neuron_atlas.tasks.report.groups import read_groups, write_groups
from neuron_atlas.tasks.report.image_clusters import read_shown_clusters
from neuron_atlas.tasks.report.inputs import ReportFiles
from neuron_atlas.tasks.report.meanings import meanings_metrics, summarize_meanings
from neuron_atlas.tasks.report.page import PageInputs, write_page
from neuron_atlas.tasks.report.record import NeuronRecord, read_records
from neuron_atlas.tasks.report.settings import About, ReportSettings
from neuron_atlas.tasks.report.site.layout import FOLDER
from neuron_atlas.tasks.report.strongest import select_strongest_neurons
from neuron_atlas.tasks.report.tables import (
    Summary,
    over_all_tokens,
    summarize_run,
    without_absent_levels,
    write_tables,
)
from neuron_atlas.tasks.report.verdict import count_verdicts, false_discovery_level

SUMMARY = "summary.json"
_OUTCOMES = (
    (SAMPLES, ["status", "reason"]),
    (DESCRIPTIONS, ["status", "reason"]),
    (EXPLANATIONS, None),
    (SIMULATIONS, ["explanation", "status", "reason"]),
    (SCORES, None),
)


def write_report(
    folder: Path, files: ReportFiles, settings: ReportSettings, about: About
) -> list[str]:
    """Write index.html with its images, figures/, tables/ and summary.json into `folder`.

    Returns the paths of the files, relative to the folder, without those of the site.
    """
    types = read_table(files.tables["types"], NEURON_TYPES)
    outcomes = {
        spec.name: read_table(files.tables[spec.name], spec, columns) for spec, columns in _OUTCOMES
    }
    outcomes |= {
        spec.name: read_table(paths, spec, ["status", "reason"])
        for spec in (MEANING_EXPLANATIONS, MEANING_SCORES)
        if (paths := files.tables.get(spec.name))
    }
    outcomes["activations"] = nonfinite_outcomes(
        [(layer, files.layers[layer]["moments"]) for layer in sorted(files.layers)]
    )
    outcomes["simulations"] = without_absent_levels(outcomes["simulations"])
    # The aggregates count scores that are undefined over visual or text tokens alone.
    scores = outcomes["scores"] = over_all_tokens(outcomes["scores"])
    aggregates = read_table(files.tables["score_aggregates"], SCORE_AGGREGATES)
    analysis = read_analysis(files.tables, types)
    level = false_discovery_level(aggregates)
    effects = read_effects(files.tables, types, level)
    clarity = read_clarity(files.tables, types)
    figures = draw_figures(types, scores, analysis, effects)
    chosen = select_strongest_neurons(
        types, outcomes["explanations"], scores, settings.neurons_per_type
    )
    groups = read_groups(files.tables)
    figures += groups.figures() if groups else []
    inputs = PageInputs(
        title=settings.title,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        about=replace(about, facts=(("samples", f"{len(outcomes['samples']):,}"), *about.facts)),
        types=types,
        aggregates=aggregates,
        outcomes=outcomes,
        figures=figures,
        ablated=groups,
        neurons=_read_chosen(files, chosen, settings.exemplars, level),
        analysis=analysis,
        verdicts=count_verdicts(scores, level),
        effects=effects,
        clarity=clarity,
        several=summarize_meanings(files.tables),
        clusters=read_shown_clusters(
            files.tables, files.samples, outcomes["explanations"]["text"].to_pylist()
        ),
    )
    write_page(folder, inputs)
    write_figures(folder / "figures", figures)
    write_tables(folder / "tables", types, aggregates, outcomes)
    write_analysis(folder / "tables", analysis)
    write_groups(folder / "tables", groups)
    write_clarity(folder / "tables", clarity)
    summary = summarize_run(types, scores, aggregates, outcomes, analysis.responses)
    parts = {"effects": effects, "search": clarity}
    measured = {name: part.metrics() if part else {} for name, part in parts.items()}
    measured["meanings"] = meanings_metrics(files.tables)
    _write_summary(folder / SUMMARY, summary, measured)
    site = folder / FOLDER
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and site not in path.parents
    )


def _read_chosen(
    files: ReportFiles,
    chosen: Sequence[tuple[int, int, str]],
    exemplars: int,
    level: float | None,
) -> list[NeuronRecord]:
    found = {}
    for layer in sorted({layer for layer, _, _ in chosen}):
        neurons = [neuron for its_layer, neuron, _ in chosen if its_layer == layer]
        found[layer] = read_records(
            files.layers[layer],
            neurons,
            files.samples.open,
            exemplars,
            statistics=(SAYINGS,),
            level=level,
        )
    return [found[layer][neuron] for layer, neuron, _ in chosen]


def _write_summary(
    path: Path, summed: Summary, measured: Mapping[str, Mapping[str, float | None]]
) -> None:
    """measured: numbers of some stages, by name, for `summary_metrics`."""
    summary = asdict(summed)
    failures = [
        {"table": table, "status": status, "count": count}
        for (table, status), count in summary.pop("failures").items()
    ]
    path.write_text(
        json.dumps({**summary, **measured, "failures": failures}, indent=2), encoding="utf-8"
    )
