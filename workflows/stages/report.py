"""Report: figures, tables, the page, and a site of every neuron that the page leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import TYPE_SUMMARIES, layer_file
from neuron_atlas.tasks.artifacts.location import file_names, filling
from neuron_atlas.tasks.report.settings import About, ReportFiles, ReportSettings, SiteSettings
from neuron_atlas.tasks.report.site.columns import Accounts
from neuron_atlas.tasks.report.site.inputs import LayerFiles, SampleFiles, SitePart, cut_layer
from neuron_atlas.tasks.report.site.layout import FOLDER, data_file, samples_key
from neuron_atlas.tasks.report.site.samples import cut_samples
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Files, Item, Stage, Step, Worker, Written
from neuron_atlas.workflows.run.store import MANIFEST, read_json, write_json

PARTS = f"{FOLDER}/.parts"
"""What each finished part of the site found out, for the parts that follow."""

_ACCOUNTS = f"{PARTS}/accounts.json"
_TABLES = (
    ("samples", "samples"),
    ("describe", "descriptions"),
    ("classify", "types"),
    ("classify", "tested_types"),  # Only where the rule tests.
    *(("analyse", name) for name in ("responses", *(spec.name for spec in TYPE_SUMMARIES))),
    ("explain", "explanations"),
    ("simulate", "simulations"),
    ("score", "scores"),
    ("score", "score_aggregates"),
)


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"report": identity(context.settings.report), "about": identity(_about(context))}


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


@dataclass(frozen=True)
class _Page:
    files: ReportFiles
    source: Source
    settings: ReportSettings
    about: About


def _page(context: Context, folder: Path) -> list[Item]:
    written = {(made.stage, name) for made in context.done.values() for name in made.files}
    tables = {
        name: tuple(context.paths(stage, name))
        for stage, name in _TABLES
        if (stage, name) in written
    }
    captured = context.folder("capture")
    traces = {layer: captured / layer_file("traces", layer) for layer in context.layers()}
    settings = context.settings
    site = f"artifacts/{STAGE.name}/{folder.name}/{FOLDER}" if _has_site(context) else ""
    return [
        Item(
            "page",
            1,
            (),
            _Page(
                ReportFiles(tables, traces),
                settings.data.source,
                settings.report,
                replace(_about(context), site=site),
            ),
        )
    ]


def _write_page(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.report.report import write_report

    page: _Page = item.inputs
    with filling(folder) as local:
        write_report(local, page.files, page.source, page.settings, page.about)


def _has_site(context: Context) -> bool:
    return context.settings.report.site.write


@dataclass(frozen=True)
class _Scored:
    explanations: Sequence[Path]
    scores: Sequence[Path]
    aggregates: Sequence[Path]


def _accounts(context: Context, folder: Path) -> list[Item]:
    if not _has_site(context):
        return []
    scored = _Scored(
        context.paths("explain", "explanations"),
        context.paths("score", "scores"),
        context.paths("score", "score_aggregates"),
    )
    return [Item("accounts", 1, (_ACCOUNTS,), scored)]


def _list_accounts(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.report.site.columns import list_accounts

    of: _Scored = item.inputs
    accounts = list_accounts(of.explanations, of.scores, of.aggregates)
    write_json(folder / _ACCOUNTS, accounts.to_json())


def _columns(context: Context, folder: Path) -> list[Item]:
    layers = _layer_files(context)
    return [
        Item(f"columns-layer-{one.layer:03d}", 1, (_columns_mark(one.layer),), one)
        for one in layers
    ]


def _columns_mark(layer: int) -> str:
    return f"{PARTS}/columns-{layer:03d}.json"


def _write_columns(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.report.site.columns import write_columns

    accounts = Accounts.from_json(read_json(folder / _ACCOUNTS))
    (mark,) = item.files
    write_json(folder / mark, write_columns(folder / FOLDER, item.inputs, accounts))


@dataclass(frozen=True)
class _Neurons:
    part: SitePart
    layer: LayerFiles
    samples: SampleFiles
    settings: SiteSettings
    top_n: int


def _neurons(context: Context, folder: Path) -> list[Item]:
    samples, site = _sample_files(context), context.settings.report.site
    top_n = context.settings.capture.top_n
    return [
        Item(
            key=f"neurons-{part.layer:03d}-{part.start:06d}",
            size=part.stop - part.start,
            files=(f"{PARTS}/{part.layer:03d}-{part.start:06d}.json",),
            inputs=_Neurons(part, layer, samples, site, top_n),
        )
        for layer in _layer_files(context)
        for part in cut_layer(layer)
    ]


def _write_neurons(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.report.site.neurons import write_neurons

    of: _Neurons = item.inputs
    shown = write_neurons(folder / FOLDER, of.part, of.layer, of.samples, of.settings, of.top_n)
    (mark,) = item.files
    write_json(folder / mark, {"shown": sorted(shown)})


@dataclass(frozen=True)
class _Samples:
    sample_ids: tuple[int, ...]
    files: SampleFiles
    settings: SiteSettings


def _samples(context: Context, folder: Path) -> list[Item]:
    """The samples that the parts of neurons show."""
    shown: set[int] = set()
    for item in _neurons(context, folder):
        shown.update(read_json(folder / item.files[0])["shown"])
    files, site = _sample_files(context), context.settings.report.site
    return [
        Item(
            key=f"samples-{batch[0]:08d}",
            size=len(batch),
            # The last file that is written of a batch.
            files=((Path(FOLDER) / data_file(samples_key(batch[-1]))).as_posix(),),
            inputs=_Samples(batch, files, site),
        )
        for batch in cut_samples(shown)
    ]


def _write_samples(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.report.site.samples import write_samples

    of: _Samples = item.inputs
    write_samples(folder / FOLDER, of.sample_ids, of.files, of.settings)


@dataclass(frozen=True)
class _Index:
    layers: tuple[int, ...]
    about: About
    title: str


def _index(context: Context, folder: Path) -> list[Item]:
    if not _has_site(context):
        return []
    inputs = _Index(context.layers(), _about(context), context.settings.report.title)
    return [Item("index", 1, (), inputs)]


def _write_index(item: Item, folder: Path, worker: Worker) -> None:
    from neuron_atlas.tasks.report.site.index import write_index

    of: _Index = item.inputs
    rows = [read_json(folder / _columns_mark(layer)) for layer in of.layers]
    accounts = Accounts.from_json(read_json(folder / _ACCOUNTS))
    write_index(folder / FOLDER, rows, accounts, of.about, of.title)


def _layer_files(context: Context) -> list[LayerFiles]:
    """The tables of each layer; none where no site is written."""
    if not _has_site(context):
        return []
    captured = context.folder("capture")
    names = ("traces", "random_traces", "exemplars", "histograms", "moments")
    is_tested = "tested_types" in context.done["classify"].files

    def of(layer: int, stage: str, artifact: str) -> tuple[Path, ...]:
        """The files of one layer's neurons, which say so in their names."""
        start = layer_file(artifact, layer).removesuffix(".parquet")
        return tuple(path for path in context.paths(stage, artifact) if path.name.startswith(start))

    return [
        LayerFiles(
            layer=layer,
            captured={name: captured / layer_file(name, layer) for name in names},
            types=of(layer, "classify", "types")[0],
            tested_types=of(layer, "classify", "tested_types")[0] if is_tested else None,
            responses=of(layer, "analyse", "responses")[0],
            explanations=of(layer, "explain", "explanations"),
            simulations=of(layer, "simulate", "simulations"),
            scores=of(layer, "score", "scores"),
        )
        for layer in context.layers()
    ]


def _sample_files(context: Context) -> SampleFiles:
    return SampleFiles(
        tuple(context.paths("samples", "samples")),
        tuple(context.paths("describe", "descriptions")),
        context.settings.data.source,
    )


def _finish(context: Context, folder: Path, files: Files) -> Written:
    names = sorted(file_names(folder) - {MANIFEST})
    site = [name for name in names if name.startswith(f"{FOLDER}/")]
    report = [name for name in names if name not in set(site)]
    shown = [name for name in site if not name.startswith(f"{PARTS}/")]
    return Written({"report": report} | ({"site": shown} if shown else {}))


STAGE = Stage(
    "report",
    3,
    ("samples", "describe", "capture", "classify", "analyse", "explain", "simulate", "score"),
    _parameters,
    (
        Step("report", "page", _page, _write_page),
        Step("report", "", _accounts, _list_accounts),
        Step("report", "", _columns, _write_columns),
        Step("report", "neurons", _neurons, _write_neurons),
        Step("report", "images", _samples, _write_samples),
        Step("report", "", _index, _write_index),
    ),
    _finish,
    temporary=(PARTS,),
)
