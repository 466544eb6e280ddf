"""Report: figures, tables, the page, and the site that it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import layer_file
from neuron_atlas.tasks.artifacts.location import filling, remove_folder
from neuron_atlas.tasks.report.settings import About, ReportFiles, ReportSettings
from neuron_atlas.tasks.report.site.layout import FOLDER
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.progress import progress
from neuron_atlas.workflows.cluster.spread import result
from neuron_atlas.workflows.run.stage import Context, Stage, Written
from neuron_atlas.workflows.stages.analyse import SUMMARIES
from neuron_atlas.workflows.stages.site import MARKS, write_site


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"report": identity(context.settings.report), "about": identity(_about(context))}


def _run(context: Context, folder: Path) -> Written:
    written = {(made.stage, name) for made in context.manifests() for name in made.files}
    files = ReportFiles(
        tables={
            name: tuple(context.paths(stage, name))
            for stage, name in _TABLES
            if (stage, name) in written
        },
        traces={
            layer: context.folder("capture") / layer_file("traces", layer)
            for layer in context.layers()
        },
    )
    settings = context.settings
    about = _about(context)
    has_site = settings.report.site.write
    where = f"artifacts/{STAGE.name}/{folder.name}/{FOLDER}" if has_site else ""
    with progress("report", 1, "page") as advance:
        left = result(
            _write_report.remote(
                folder, files, settings.data.source, settings.report, replace(about, site=where)
            )
        )
        advance(1)
    beside = {"site": write_site(context, folder, about)} if has_site else {}
    return Written({"report": left} | beside, {})


def _tidy(folder: Path) -> None:
    remove_folder(folder / FOLDER / MARKS)


_TABLES = (
    ("samples", "samples"),
    ("describe", "descriptions"),
    ("classify", "types"),
    ("classify", "tested_types"),  # Only where the rule tests.
    *(("analyse", name) for name in ("responses", *(spec.name for spec in SUMMARIES))),
    ("explain", "explanations"),
    ("simulate", "simulations"),
    ("score", "scores"),
    ("score", "score_aggregates"),
)


def _about(context: Context) -> About:
    settings = context.settings
    return About(
        subject=Path(settings.subject.model).name,
        dataset=settings.data.source.title,
        fingerprint=context.identity("score")[:16],
        facts=(
            ("question", settings.subject.question),
            ("texts", settings.describe.text),
            ("layers", ", ".join(map(str, context.layers()))),
            ("hook point", settings.capture.hook_point),
            ("exemplars a neuron", str(settings.capture.top_n)),
            ("explainer", ", ".join(settings.explain.names)),
            ("simulator", settings.simulate.simulator.name),
        ),
    )


@task()
def _write_report(
    folder: Path, files: ReportFiles, source: Source, settings: ReportSettings, about: About
) -> list[str]:
    from neuron_atlas.tasks.report.report import write_report

    with filling(folder) as local:
        return write_report(local, files, source, settings, about)


STAGE = Stage(
    "report",
    3,
    ("samples", "describe", "capture", "classify", "analyse", "explain", "simulate", "score"),
    _parameters,
    _run,
    _tidy,
)
