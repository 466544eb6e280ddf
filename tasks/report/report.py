"""The report of a run: its page, figures, tables and closing summary."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    DESCRIPTIONS,
    EXPLANATIONS,
    NEURON_TYPES,
    SAMPLES,
    SCORE_AGGREGATES,
    SCORES,
    SIMULATIONS,
    TRACES,
    read_table,
)
from neuron_atlas.tasks.evidence.evidence import read_traces
from neuron_atlas.tasks.report.analysis import read_analysis, write_analysis
from neuron_atlas.tasks.report.figures import write_figures
from neuron_atlas.tasks.report.page import Heading, PageInputs, write_page
from neuron_atlas.tasks.report.settings import About, ReportFiles, ReportSettings
from neuron_atlas.tasks.report.site.layout import FOLDER
from neuron_atlas.tasks.report.strongest import select_strongest_neurons
from neuron_atlas.tasks.report.tables import Summary, over_all_tokens, summarise, write_tables
from neuron_atlas.tasks.samples.catalog import open_catalog
from neuron_atlas.tasks.samples.source import Source

SUMMARY = "summary.json"
_OUTCOMES = (
    (SAMPLES, ["status", "reason"]),
    (DESCRIPTIONS, ["status", "reason"]),
    (EXPLANATIONS, None),
    (SIMULATIONS, ["status", "reason"]),
    (SCORES, None),
)


def write_report(
    folder: Path, files: ReportFiles, source: Source, settings: ReportSettings, about: About
) -> list[str]:
    """Write index.html with its images, figures/, tables/ and summary.json into `folder`.

    Returns the files written, relative to the folder; what is in its site is not among them.
    """
    types = read_table(files.tables["types"], NEURON_TYPES)
    outcomes = {
        spec.name: read_table(files.tables[spec.name], spec, columns) for spec, columns in _OUTCOMES
    }
    explanations, scores = outcomes["explanations"], outcomes["scores"]
    aggregates = read_table(files.tables["score_aggregates"], SCORE_AGGREGATES)
    analysis = read_analysis(files.tables, types)
    # What is undefined over the visual or the text tokens alone is counted in the aggregates.
    overall = outcomes["scores"] = over_all_tokens(scores)
    chosen = select_strongest_neurons(types, explanations, overall, settings.neurons_per_type)
    traces = _chosen_traces(files.traces, chosen, settings.exemplars)
    catalog = open_catalog(
        files.tables["samples"],
        files.tables["descriptions"],
        sample_ids=set(traces["sample_id"].to_pylist()),
        source=source,
    )
    heading = Heading(
        title=settings.title,
        subject=about.subject,
        dataset=about.dataset,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        fingerprint=about.fingerprint,
        facts=(("samples", f"{len(outcomes['samples']):,}"), *about.facts),
        site=about.site,
    )
    write_page(
        folder,
        PageInputs(
            heading=heading,
            types=types,
            explanations=explanations,
            scores=scores,
            aggregates=aggregates,
            outcomes=outcomes,
            chosen=chosen,
            traces=traces,
            catalog=catalog,
            top_exemplars=settings.exemplars,
            analysis=analysis,
        ),
    )
    write_figures(folder / "figures", types, overall, analysis)
    write_tables(folder / "tables", types, aggregates, outcomes)
    write_analysis(folder / "tables", analysis)
    _write_summary(folder / SUMMARY, summarise(types, overall, aggregates, outcomes))
    beside = folder / FOLDER
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and beside not in path.parents
    )


def _chosen_traces(
    paths: Mapping[int, Path], chosen: Sequence[tuple[int, int, str]], exemplars: int
) -> pa.Table:
    tables = [TRACES.schema.empty_table()]
    for layer in sorted({layer for layer, _, _ in chosen}):
        neurons = [neuron for of, neuron, _ in chosen if of == layer]
        traces = read_traces(paths[layer], TRACES, neurons)
        tables.append(traces.filter(pc.less(traces["rank"], exemplars)))
    return pa.concat_tables(tables)


def _write_summary(path: Path, summed: Summary) -> None:
    summary = asdict(summed)
    failures = [
        {"table": table, "status": status, "count": count}
        for (table, status), count in summary.pop("failures").items()
    ]
    path.write_text(json.dumps(summary | {"failures": failures}, indent=2), encoding="utf-8")
