"""Report: figures, tables, the page, and a site of every neuron that the page leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import TYPE_SUMMARIES
from neuron_atlas.tasks.artifacts.location import file_names, uploaded_folder
from neuron_atlas.tasks.report.inputs import (
    LayerFiles,
    ReportFiles,
    SampleFiles,
    files_of_layer,
)
from neuron_atlas.tasks.report.settings import About, ReportSettings, SiteSettings
from neuron_atlas.tasks.report.site.columns import ScorePairs
from neuron_atlas.tasks.report.site.layout import (
    FOLDER,
    SitePart,
    data_file,
    samples_key,
    split_layer,
)
from neuron_atlas.tasks.report.site.samples import split_samples
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.neurons import image_cache
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Work, Worker
from neuron_atlas.workflows.run.store import MANIFEST, read_json, write_json

PARTS = f"{FOLDER}/.parts"
"""What each finished part of the site found out, for the parts that follow."""

_SCORE_PAIRS = f"{PARTS}/pairs.json"
_TABLES = (
    ("samples", "samples"),
    ("describe", "descriptions"),
    # Only of images without concepts.
    *(("image_clusters", name) for name in ("image_clusters", "image_cluster_names")),
    *(("capture", name) for name in ("exemplars", "histograms", "moments")),
    ("capture", "experts"),  # Only of a model with experts.
    ("evidence", "evidence"),
    # Only of a run that changes groups of neurons.
    *(("groups", name) for name in ("group_effects", "dissociations", "steering_effects")),
    ("sayings", "sayings"),
    *(("search", name) for name in ("search_vectors", "neighbors")),
    ("classify", "types"),
    ("classify", "tested_types"),  # Only where the rule tests.
    *(
        ("analyse", name)
        for name in ("meanings", "responses", *(spec.name for spec in TYPE_SUMMARIES))
    ),
    ("explain", "explanations"),
    ("simulate", "simulations"),
    ("score", "scores"),
    ("score", "score_aggregates"),
    # Only of a run that explains meanings.
    ("explain_meanings", "meaning_explanations"),
    ("score_meanings", "meaning_scores"),
    # Only of a run that measures effects.
    *(("effects", name) for name in ("effects", "output_tokens", "ablations")),
    ("faithfulness", "faithfulness"),
)

_PARTIAL = ("image_clusters", "capture", "classify", "effects", "groups", "sayings")
"""Stages that do not write all tables, or do not run."""


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
            ("texts", settings.describe.text_source),
            ("layers", ", ".join(map(str, context.layers()))),
            ("hook point", settings.capture.hook_point),
            ("exemplars a neuron", str(context.capture.top_n)),
            ("explainer", ", ".join(settings.explain.names)),
            ("simulator", settings.simulate.simulator.name),
        ),
    )


def _parts(context: Context, folder: Path) -> list[Item]:
    """The page, which takes longest, and the parts of the site; none waits for another."""
    return [_page(context, folder), *_columns(context), *_neurons(context)]


def _write_part(worker: Worker, write: Work, *inputs: Any) -> None:
    write(worker, *inputs)


def _page(context: Context, folder: Path) -> Item:
    settings = context.settings
    site = f"artifacts/{STAGE.name}/{folder.name}/{FOLDER}" if _has_site(context) else ""
    about = replace(_about(context), site=site)
    return Item("page", 1, (), (_write_page, _files(context), settings.report, about))


def _write_page(worker: Worker, files: ReportFiles, settings: ReportSettings, about: About) -> None:
    from neuron_atlas.tasks.report.report import write_report

    with uploaded_folder(worker.folder) as local:
        write_report(local, files, settings, about)


def _files(context: Context) -> ReportFiles:
    tables = {
        name: tuple(context.paths(stage, name))
        for stage, name in _TABLES
        if stage not in _PARTIAL or (stage in context.done and name in context.done[stage].files)
    }
    samples = SampleFiles(
        tables["samples"],
        tables["descriptions"],
        context.settings.data.source,
        image_cache(context),
    )
    layers = {layer: files_of_layer(layer, tables) for layer in context.layers()}
    return ReportFiles(tables, layers, samples)


def _has_site(context: Context) -> bool:
    return context.settings.report.site.write


def _score_pairs(context: Context, folder: Path) -> list[Item]:
    if not _has_site(context):
        return []
    scored = (
        context.paths("explain", "explanations"),
        context.paths("score", "scores"),
        context.paths("score", "score_aggregates"),
    )
    return [Item("pairs", 1, (_SCORE_PAIRS,), scored)]


def _list_score_pairs(
    worker: Worker,
    explanations: Sequence[Path],
    scores: Sequence[Path],
    aggregates: Sequence[Path],
) -> None:
    from neuron_atlas.tasks.report.site.columns import list_score_pairs

    pairs = list_score_pairs(explanations, scores, aggregates)
    write_json(worker.folder / _SCORE_PAIRS, pairs.to_json())


def _columns(context: Context) -> list[Item]:
    texts = tuple(context.paths("analyse", "words"))
    return [
        Item(
            key=f"columns-layer-{one.layer:03d}",
            size=1,
            files=(_columns_mark(one.layer),),
            inputs=(_write_columns, one, texts),
        )
        for one in _layer_files(context)
    ]


def _columns_mark(layer: int) -> str:
    return f"{PARTS}/columns-{layer:03d}.json"


def _write_columns(worker: Worker, layer: LayerFiles, texts: Sequence[Path]) -> None:
    from neuron_atlas.tasks.report.site.columns import write_columns

    pairs = ScorePairs.from_json(read_json(worker.folder / _SCORE_PAIRS))
    (mark,) = worker.paths
    write_json(mark, write_columns(worker.folder / FOLDER, layer, pairs, texts))


def _neurons(context: Context) -> list[Item]:
    samples, site = _files(context).samples, context.settings.report.site
    return [
        Item(
            key=f"neurons-{part.layer:03d}-{part.start:06d}",
            size=1,
            files=(f"{PARTS}/{part.layer:03d}-{part.start:06d}.json",),
            inputs=(_write_neurons, part, layer, samples, site),
        )
        for layer in _layer_files(context)
        for part in split_layer(layer)
    ]


def _write_neurons(
    worker: Worker,
    part: SitePart,
    layer: LayerFiles,
    samples: SampleFiles,
    settings: SiteSettings,
) -> None:
    from neuron_atlas.tasks.report.site.neurons import write_neurons

    level = ScorePairs.from_json(read_json(worker.folder / _SCORE_PAIRS)).level
    shown = write_neurons(worker.folder / FOLDER, part, layer, samples, settings, level)
    (mark,) = worker.paths
    write_json(mark, {"shown": sorted(shown)})


def _samples(context: Context, folder: Path) -> list[Item]:
    """The samples that the parts of neurons show."""
    shown: set[int] = set()
    for item in _neurons(context):
        shown.update(read_json(folder / item.files[0])["shown"])
    files, site = _files(context).samples, context.settings.report.site
    return [
        Item(
            key=f"samples-{batch[0]:08d}",
            size=len(batch),
            # The last file that is written of a batch.
            files=((Path(FOLDER) / data_file(samples_key(batch[-1]))).as_posix(),),
            inputs=(batch, files, site),
        )
        for batch in split_samples(shown)
    ]


def _write_samples(
    worker: Worker, sample_ids: tuple[int, ...], files: SampleFiles, settings: SiteSettings
) -> None:
    from neuron_atlas.tasks.report.site.samples import write_samples

    write_samples(worker.folder / FOLDER, sample_ids, files, settings)


def _index(context: Context, folder: Path) -> list[Item]:
    if not _has_site(context):
        return []
    inputs = (context.layers(), _about(context), context.settings.report.title)
    return [Item("index", 1, (), inputs)]


def _write_index(worker: Worker, layers: tuple[int, ...], about: About, title: str) -> None:
    from neuron_atlas.tasks.report.site.index import write_index

    rows = [read_json(worker.folder / _columns_mark(layer)) for layer in layers]
    pairs = ScorePairs.from_json(read_json(worker.folder / _SCORE_PAIRS))
    write_index(worker.folder / FOLDER, rows, pairs, about, title)


def _layer_files(context: Context) -> list[LayerFiles]:
    """The tables of each layer; none where no site is written."""
    return list(_files(context).layers.values()) if _has_site(context) else []


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    names = sorted(file_names(folder) - {MANIFEST})
    site = [name for name in names if name.startswith(f"{FOLDER}/")]
    report = [name for name in names if name not in set(site)]
    shown = [name for name in site if not name.startswith(f"{PARTS}/")]
    return StageOutput({"report": report} | ({"site": shown} if shown else {}))


STAGE = Stage(
    "report",
    7,
    (
        "samples",
        "describe",
        "image_clusters",
        "capture",
        "classify",
        "groups",
        "sayings",
        "evidence",
        "search",
        "analyse",
        "explain",
        "simulate",
        "score",
        "explain_meanings",
        "score_meanings",
        "effects",
        "faithfulness",
    ),
    _parameters,
    (
        Step("report", "", _score_pairs, _list_score_pairs),
        Step("report", "parts", _parts, _write_part),
        Step("report", "images", _samples, _write_samples),
        Step("report", "", _index, _write_index),
    ),
    _finish,
    temporary=(PARTS,),
)
