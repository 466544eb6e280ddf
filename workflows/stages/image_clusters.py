"""Image clusters: groups of similar patches that explanations can name, for images without
ground-truth concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    CONCEPTS,
    DESCRIPTIONS,
    IMAGE_CLUSTER_CENTERS,
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    USABLE,
    read_table,
    row_count,
    write_table,
)
from neuron_atlas.tasks.image_clusters.settings import ImageClusterSettings
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.replay import usable_samples
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Worker
from neuron_atlas.workflows.run.subject import needs_subject

_CENTERS = f"{IMAGE_CLUSTER_CENTERS.name}.parquet"
_NAMES = f"{IMAGE_CLUSTER_NAMES.name}.parquet"
_BAR = "clusters"


def _has_work(context: Context) -> bool:
    """Return whether an explainer composes what images show, and no image has concepts."""
    settings = context.settings
    explainers = [one.explainer for one in settings.explain.each_explainer]
    is_used = any(one.uses_background for one in explainers)
    if not (is_used and settings.image_clusters.count):
        return False
    return not context.done["samples"].rows.get(CONCEPTS.name, 0)


def _parameters(context: Context) -> Mapping[str, Any]:
    if not _has_work(context):
        return {"image_clusters": None}
    return {"image_clusters": identity(context.settings.image_clusters)}


def _learn_items(context: Context, folder: Path) -> list[Item]:
    if not _has_work(context):
        return []
    settings = context.settings.image_clusters
    described = usable_samples(context, ["sample_id", "n_visual"])
    seen = described.filter(pc.greater(described["n_visual"], 0))["sample_id"].to_pylist()
    sample_ids = draw_random(seen, settings.samples, settings.seed)
    descriptions = context.paths("describe", "descriptions")
    inputs = (sample_ids, descriptions, settings, *_reading(context))
    return [Item("centers", len(sample_ids), (_CENTERS,), inputs)]


def _learn(
    worker: Worker,
    sample_ids: Sequence[int],
    descriptions: Sequence[Path],
    settings: ImageClusterSettings,
    samples: Sequence[Path],
    source: Source,
    batch_size: int,
    threads: int | None,
) -> None:
    """Write the centers of the clusters."""
    from neuron_atlas.tasks.image_clusters.learn import learn_centers
    from neuron_atlas.tasks.samples.catalog import open_catalog

    catalog = open_catalog(samples, descriptions, sample_ids=sample_ids, source=source)
    subject = worker.loaded.subject
    centers = learn_centers(
        subject, sample_ids, catalog, settings, batch_size, threads, worker.count
    )
    (path,) = worker.paths
    write_table(centers, IMAGE_CLUSTER_CENTERS, path)


def _assign_items(context: Context, folder: Path) -> list[Item]:
    """Return an item for each file of texts."""
    if not _has_work(context):
        return []
    return [
        Item(
            path.stem,
            row_count(path),
            (path.name.replace(DESCRIPTIONS.name, IMAGE_CLUSTERS.name, 1),),
            (path, folder / _CENTERS, *_reading(context)),
        )
        for path in context.paths("describe", "descriptions")
    ]


def _assign(
    worker: Worker,
    descriptions: Path,
    centers: Path,
    samples: Sequence[Path],
    source: Source,
    batch_size: int,
    threads: int | None,
) -> None:
    """Write the cluster of every visual token of the samples of one file of texts."""
    from neuron_atlas.tasks.image_clusters.assign import assign_clusters
    from neuron_atlas.tasks.samples.catalog import open_catalog

    columns = ["sample_id", "n_visual", "status"]
    rows = read_table(descriptions, DESCRIPTIONS, columns).to_pylist()
    seen = [row["sample_id"] for row in rows if row["n_visual"] and row["status"] in USABLE]
    catalog = open_catalog(samples, [descriptions], sample_ids=seen, source=source)
    table = assign_clusters(
        worker.loaded.subject,
        seen,
        catalog,
        read_table(centers, IMAGE_CLUSTER_CENTERS),
        batch_size,
        threads,
        worker.count,
    )
    (path,) = worker.paths
    write_table(table, IMAGE_CLUSTERS, path)


def _name_items(context: Context, folder: Path) -> list[Item]:
    clusters = [folder / name for item in _assign_items(context, folder) for name in item.files]
    if not clusters:
        return []
    descriptions = context.paths("describe", "descriptions")
    return [Item("names", 1, (_NAMES,), (folder / _CENTERS, clusters, descriptions))]


def _name(
    worker: Worker, centers: Path, clusters: Sequence[Path], descriptions: Sequence[Path]
) -> None:
    """Write the names of the clusters."""
    from neuron_atlas.tasks.image_clusters.name import name_clusters

    (path,) = worker.paths
    names = name_clusters(row_count(centers), clusters, descriptions)
    write_table(names, IMAGE_CLUSTER_NAMES, path)


def _reading(context: Context) -> tuple[Sequence[Path], Source, int, int | None]:
    """Return how to read images: files of samples, the source, the batch size and threads."""
    settings = context.settings
    capture = settings.capture
    samples = context.paths("samples", "samples")
    return samples, settings.data.source, capture.batch_size, capture.image_threads


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    """Without clusters, no setting of theirs changes what later stages read."""
    return StageOutput(files, content="" if files else "none")


STAGE = Stage(
    "image_clusters",
    1,
    ("samples", "describe"),
    _parameters,
    (
        Step(_BAR, "samples", _learn_items, _learn, needs_subject),
        Step(_BAR, "samples", _assign_items, _assign, needs_subject),
        Step(_BAR, "", _name_items, _name),
    ),
    _finish,
)
