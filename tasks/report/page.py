"""The report as one static page that opens from a folder, without network or server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.report import wording
from neuron_atlas.tasks.report.analysis import Analysis
from neuron_atlas.tasks.report.canvas import svg_text
from neuron_atlas.tasks.report.entries import Entry, describe_exemplar, describe_neuron
from neuron_atlas.tasks.report.figures import draw_plates
from neuron_atlas.tasks.report.heat import save_view
from neuron_atlas.tasks.report.palette import DARK, LIGHT, css_variables, heat_gradient
from neuron_atlas.tasks.report.tables import (
    failures_by_status,
    over_all_tokens,
    scores_overview,
    types_by_layer,
)
from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class Heading:
    """What was run, in words for the head of the page."""

    title: str
    subject: str
    dataset: str
    when: str
    fingerprint: str
    facts: tuple[tuple[str, str], ...] = ()
    """Further pairs of a name and a value: samples, layers, explainer ..."""
    site: str = ""
    """Where the site beside the page lies in the run's output folder; empty without one."""


@dataclass(frozen=True)
class PageInputs:
    """All that a page shows. `types`, `scores` and `aggregates` are whole; `explanations` may be;
    `traces` and the catalog need hold only the chosen neurons' exemplars."""

    heading: Heading
    types: pa.Table
    explanations: pa.Table
    scores: pa.Table
    aggregates: pa.Table
    outcomes: Mapping[str, pa.Table]
    """Tables with a status, by name: for the failures by reason."""
    chosen: Sequence[tuple[int, int, str]]
    """From `select_strongest_neurons`."""
    traces: pa.Table
    catalog: Catalog
    top_exemplars: int = 6
    analysis: Analysis | None = None


def write_page(folder: Path, inputs: PageInputs) -> Path:
    """Write `index.html` and `images/` into `folder`; gives the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = _describe(inputs, folder)
    script = _text("atlas.js")
    page = (
        _environment()
        .get_template("page.html")
        .render(
            heading=inputs.heading,
            plates=[
                {"plate": plate, "source": _svg_uri(svg_text(plate.figure))}
                for plate in draw_plates(
                    inputs.types, over_all_tokens(inputs.scores), inputs.analysis
                )
            ],
            types=TYPES,
            by_layer=types_by_layer(inputs.types).to_dicts(),
            overview=scores_overview(inputs.aggregates),
            responses=inputs.analysis.by_type() if inputs.analysis else [],
            failures=failures_by_status(inputs.outcomes).to_dicts(),
            groups=[(name, [entry for entry in entries if entry.type == name]) for name in TYPES],
            meanings=wording.TYPE_MEANINGS,
            heat_gradient=heat_gradient(),
            style=Markup(_stylesheet()),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _describe(inputs: PageInputs, folder: Path) -> list[Entry]:
    see = cache(lambda sample_id: save_view(inputs.catalog, sample_id, folder))
    wanted = pl.DataFrame(
        [(layer, neuron) for layer, neuron, _ in inputs.chosen],
        schema={"layer": pl.Int16, "neuron": pl.Int32},
        orient="row",
    )
    types = _rows_by_neuron(inputs.types, wanted)
    explanations = _rows_by_neuron(inputs.explanations, wanted)
    scores = _rows_by_neuron(inputs.scores, wanted)
    traces = _traces_by_neuron(inputs)
    return [
        describe_neuron(
            row,
            explanations.get((layer, neuron), []),
            scores.get((layer, neuron), []),
            tuple(
                describe_exemplar(trace, row["scale"] or 0.0, inputs.catalog, see)
                for trace in traces.get((layer, neuron), [])
            ),
        )
        for layer, neuron, _ in inputs.chosen
        for row in types[layer, neuron]
    ]


def _rows_by_neuron(
    table: pa.Table, wanted: pl.DataFrame
) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    rows = pl.DataFrame(table).join(wanted, on=["layer", "neuron"], how="semi")
    gathered: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows.fill_nan(None).to_dicts():
        gathered.setdefault((row["layer"], row["neuron"]), []).append(row)
    return gathered


def _traces_by_neuron(inputs: PageInputs) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    """The first exemplars of each chosen neuron, strongest first."""
    chosen = {(layer, neuron) for layer, neuron, _ in inputs.chosen}
    shown = inputs.traces.filter(pc.field("rank") < inputs.top_exemplars)
    gathered: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in sorted(shown.to_pylist(), key=lambda row: row["rank"]):
        if (row["layer"], row["neuron"]) in chosen:
            gathered.setdefault((row["layer"], row["neuron"]), []).append(row)
    return gathered


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("neuron_atlas.tasks.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(wording.FILTERS)
    return environment


def _stylesheet() -> str:
    return (
        f":root {{ {css_variables(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(DARK)} }} }}\n"
        + _text("atlas.css")
    )


def _text(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _svg_uri(svg: str) -> str:
    # A picture, not a part of the page: nothing in it can run, and its ids stay its own.
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")
