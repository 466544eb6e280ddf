"""Write the report as one static page that needs no network and no server."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from markupsafe import Markup

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.artifacts.effects import CAUSAL_TYPES
from neuron_atlas.tasks.report import wording
from neuron_atlas.tasks.report.analysis import Analysis
from neuron_atlas.tasks.report.clarity import ClaritySummary
from neuron_atlas.tasks.report.effects import EffectsSummary
from neuron_atlas.tasks.report.figures import ReportFigure
from neuron_atlas.tasks.report.glossary import GLOSSARY
from neuron_atlas.tasks.report.groups import GroupReport
from neuron_atlas.tasks.report.image_clusters import ShownCluster
from neuron_atlas.tasks.report.neuron_view import LARGEST_SIDE, Picture, exemplar_data
from neuron_atlas.tasks.report.pages import stylesheet, template_environment, template_text
from neuron_atlas.tasks.report.palette import heat_gradient
from neuron_atlas.tasks.report.pictures import data_uri, jpeg_bytes, open_scaled_view
from neuron_atlas.tasks.report.record import NeuronRecord
from neuron_atlas.tasks.report.settings import About
from neuron_atlas.tasks.report.tables import failures_by_status, scores_overview, types_by_layer
from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class PageInputs:
    """Content of the page.

    types, aggregates: the complete tables. outcomes: tables with a status, by name, for the
    failures by reason. neurons: in display order. verdicts: rows of `count_verdicts`. several: of
    `summarize_meanings`.
    """

    title: str
    when: str
    about: About
    types: pa.Table
    aggregates: pa.Table
    outcomes: Mapping[str, pa.Table]
    figures: Sequence[ReportFigure]
    neurons: Sequence[NeuronRecord]
    ablated: GroupReport | None = None
    analysis: Analysis | None = None
    verdicts: Sequence[Mapping[str, Any]] = ()
    effects: EffectsSummary | None = None
    clarity: ClaritySummary | None = None
    several: Sequence[Mapping[str, Any]] = ()
    clusters: Sequence[ShownCluster] = ()


def write_page(folder: Path, inputs: PageInputs) -> Path:
    """Write `index.html` and `images/` into `folder`. Return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _save_pictures(folder, inputs)
    entries = [
        (record, [exemplar_data(one, pictures[one.sample_id]) for one in record.exemplars])
        for record in inputs.neurons
    ]
    script = template_text("atlas.js")
    page = (
        template_environment()
        .get_template("page.html")
        .render(
            title=inputs.title,
            when=inputs.when,
            about=inputs.about,
            figures=[(one, data_uri("image/svg+xml", one.svg.encode())) for one in inputs.figures],
            types=TYPES,
            ablated=inputs.ablated,
            several=inputs.several,
            by_layer=types_by_layer(inputs.types).to_dicts(),
            overview=scores_overview(inputs.aggregates),
            verdicts=inputs.verdicts,
            glossary=GLOSSARY,
            responses=inputs.analysis.by_type() if inputs.analysis else [],
            effects=inputs.effects,
            clarity=inputs.clarity,
            clusters=[(one, _cluster_data(one, pictures)) for one in inputs.clusters],
            causal_types=CAUSAL_TYPES,
            failures=failures_by_status(inputs.outcomes).to_dicts(),
            groups=[
                (name, [entry for entry in entries if entry[0].type == name]) for name in TYPES
            ],
            meanings=wording.TYPE_MEANINGS,
            heat_gradient=heat_gradient(),
            style=Markup(stylesheet()),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def _cluster_data(
    cluster: ShownCluster, pictures: Mapping[int, Picture]
) -> list[Mapping[str, Any]]:
    """Return the samples of a cluster as data for the template; see `exemplar_data`."""
    samples = [cluster.catalog[sample_id] for sample_id in cluster.sample_ids]
    return [
        {
            "picture": pictures[sample.sample_id],
            "source_id": sample.source_id,
            "shape": (sample.view.width, sample.view.height),
            "heat": cluster.heat(sample.sample_id),
        }
        for sample in samples
    ]


def _save_pictures(folder: Path, inputs: PageInputs) -> dict[int, Picture]:
    """Write the image of each sample once, as a small JPEG in `folder`/images. Return by id."""
    catalogs = {
        one.sample_id: one.catalog for record in inputs.neurons for one in record.exemplars
    } | {sample_id: one.catalog for one in inputs.clusters for sample_id in one.sample_ids}
    return {one: _save_picture(folder, catalog, one) for one, catalog in catalogs.items()}


def _save_picture(folder: Path, catalog: Catalog, sample_id: int) -> Picture:
    view, problem = open_scaled_view(catalog, sample_id, LARGEST_SIDE)
    if view is None:
        return Picture(problem=problem)
    path = folder / "images" / f"{sample_id}.jpg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(jpeg_bytes(view))
    return Picture(f"images/{path.name}", view.width, view.height)
