"""The site of a report, spread over the cluster: columns by layer, then neurons, then samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.tasks.artifacts import layer_file
from neuron_atlas.tasks.artifacts.location import file_names, present
from neuron_atlas.tasks.report.settings import About, SiteSettings
from neuron_atlas.tasks.report.site.columns import Accounts
from neuron_atlas.tasks.report.site.inputs import LayerFiles, SampleFiles, SitePart, cut_layer
from neuron_atlas.tasks.report.site.layout import FOLDER, data_file, samples_key
from neuron_atlas.tasks.report.site.samples import cut_samples
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.progress import progress
from neuron_atlas.workflows.cluster.spread import result, spread
from neuron_atlas.workflows.run.stage import Context
from neuron_atlas.workflows.run.store import write_json

MARKS = ".parts"
"""Within the site's folder: what each finished part shows, for a run that goes on."""


def write_site(context: Context, folder: Path, about: About) -> list[str]:
    """Write the site into `folder`; gives its files, relative to the folder.

    Parts that an earlier run has finished are not written again. The index comes last.
    """
    site = folder / FOLDER
    settings = context.settings.report.site
    layers = [_layer_files(context, layer) for layer in context.layers()]
    samples = SampleFiles(
        tuple(context.paths("samples", "samples")),
        tuple(context.paths("describe", "descriptions")),
        context.settings.data.source,
    )
    accounts = result(
        _list_accounts.remote(
            context.paths("explain", "explanations"),
            context.paths("score", "scores"),
            context.paths("score", "score_aggregates"),
        )
    )
    rows = dict(
        spread(range(len(layers)), lambda at: _write_columns.remote(site, layers[at], accounts))
    )
    shown = _write_neurons(site, layers, samples, settings, context.settings.capture.top_n)
    _write_samples(site, shown, samples, settings)
    title = context.settings.report.title
    ordered = [rows[at] for at in range(len(layers))]
    result(_write_index.remote(site, ordered, accounts, about, title))
    names = file_names(site)
    return sorted(f"{FOLDER}/{name}" for name in names if not name.startswith(f"{MARKS}/"))


def _layer_files(context: Context, layer: int) -> LayerFiles:
    captured = context.folder("capture")
    names = ("traces", "random_traces", "exemplars", "histograms", "moments")

    def of(stage: str, artifact: str) -> tuple[Path, ...]:
        """Files that hold neurons of this layer alone say so in their names."""
        start = layer_file(artifact, layer).removesuffix(".parquet")
        return tuple(p for p in context.paths(stage, artifact) if p.name.startswith(start))

    tested = "tested_types" in context.done["classify"].files
    return LayerFiles(
        layer=layer,
        captured={name: captured / layer_file(name, layer) for name in names},
        types=of("classify", "types")[0],
        tested_types=of("classify", "tested_types")[0] if tested else None,
        responses=of("analyse", "responses")[0],
        explanations=of("explain", "explanations"),
        simulations=of("simulate", "simulations"),
        scores=of("score", "scores"),
    )


def _write_neurons(
    site: Path,
    layers: Sequence[LayerFiles],
    samples: SampleFiles,
    settings: SiteSettings,
    top_n: int,
) -> set[int]:
    files = {one.layer: one for one in layers}
    marks = {
        part: f"{part.layer:03d}-{part.start:06d}.json" for one in layers for part in cut_layer(one)
    }
    finished = present(site / MARKS, marks.values())
    waiting = [part for part, mark in marks.items() if mark not in finished]
    total = sum(part.stop - part.start for part in marks)
    done = total - sum(part.stop - part.start for part in waiting)

    def begin(part: SitePart) -> ray.ObjectRef:
        return _write_part.remote(
            site, part, files[part.layer], samples, settings, top_n, site / MARKS / marks[part]
        )

    with progress("report", total, "neurons", done) as advance:
        for part, _ in spread(waiting, begin):
            advance(part.stop - part.start)
    return {
        sample_id
        for mark in marks.values()
        for sample_id in json.loads((site / MARKS / mark).read_text(encoding="utf-8"))["shown"]
    }


def _write_samples(
    site: Path, shown: set[int], samples: SampleFiles, settings: SiteSettings
) -> None:
    batches = cut_samples(shown)
    # A batch's last file is the last that is written of it.
    last = {batch: data_file(samples_key(batch[-1])).as_posix() for batch in batches}
    finished = present(site, last.values())
    waiting = [batch for batch in batches if last[batch] not in finished]
    done = len(shown) - sum(map(len, waiting))
    with progress("report", len(shown), "images", done) as advance:
        for batch, _ in spread(
            waiting, lambda batch: _write_batch.remote(site, batch, samples, settings)
        ):
            advance(len(batch))


@task()
def _list_accounts(
    explanations: Sequence[Path], scores: Sequence[Path], aggregates: Sequence[Path]
) -> Accounts:
    from neuron_atlas.tasks.report.site.columns import list_accounts

    return list_accounts(explanations, scores, aggregates)


@task()
def _write_columns(site: Path, files: LayerFiles, accounts: Accounts) -> dict[str, Any]:
    from neuron_atlas.tasks.report.site.columns import write_columns

    return write_columns(site, files, accounts)


@task()
def _write_part(
    site: Path,
    part: SitePart,
    files: LayerFiles,
    samples: SampleFiles,
    settings: SiteSettings,
    top_n: int,
    mark: Path,
) -> None:
    from neuron_atlas.tasks.report.site.neurons import write_neurons

    shown = write_neurons(site, part, files, samples, settings, top_n)
    write_json(mark, {"shown": sorted(shown)})


@task()
def _write_batch(
    site: Path, batch: Sequence[int], samples: SampleFiles, settings: SiteSettings
) -> None:
    from neuron_atlas.tasks.report.site.samples import write_samples

    write_samples(site, batch, samples, settings)


@task()
def _write_index(
    site: Path, rows: Sequence[dict[str, Any]], accounts: Accounts, about: About, title: str
) -> None:
    from neuron_atlas.tasks.report.site.index import write_index

    write_index(site, rows, accounts, about, title)
