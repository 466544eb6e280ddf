"""Capture: shards of samples through the subject, then the shards of every layer merged."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from tasks.artifacts import DESCRIPTIONS, layer_file, read_table, write_table
from tasks.capture.shard_plan import ShardPlan, plan_shards
from tasks.settings import identity
from workflows.cluster import spread
from workflows.errors import RunFailed
from workflows.progress import progress
from workflows.stage import Context, Stage, Written, count_rows

ARTIFACTS = ("exemplars", "traces", "random_traces", "moments")


def _parameters(context: Context) -> Mapping[str, Any]:
    return {
        "subject": context.subject_identity(),
        "capture": identity(context.settings.capture),
    }


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings.capture
    described = context.paths("describe", "descriptions")
    columns = ["sample_id", "n_visual", "n_text", "status"]
    context.settings.explain.explainer.check()  # For want of a key, hours would be in vain.
    extent = context.extent()
    plans = plan_shards(
        read_table(described, DESCRIPTIONS, columns),
        extent.layers,
        settings,
        extent.neurons_per_layer,
    )
    if not plans:
        raise RunFailed("no sample has a text to capture; see the failures of describe")
    shards = [folder / "shards" / plan.name for plan in plans]
    _capture(context, plans, shards, described)
    context.pool.close()
    with context.timed("merge"):
        _merge(context.layers(), shards, folder, settings.top_n)
    files = {name: [layer_file(name, layer) for layer in context.layers()] for name in ARTIFACTS}
    return Written(files, count_rows(folder, files), about={"layers": context.layers()})


def _capture(
    context: Context, plans: Sequence[ShardPlan], shards: Sequence[Path], described: list[Path]
) -> None:
    folders = dict(zip(plans, shards, strict=True))
    waiting = [plan for plan in plans if not folders[plan].is_dir()]
    listed = context.paths("samples", "samples")
    source = context.settings.data.source

    def call(actor: Any, plan: ShardPlan) -> ray.ObjectRef:
        return actor.capture.remote(plan, listed, described, source, folders[plan])

    def size(plan: ShardPlan) -> int:
        return len(plan.sample_ids)

    total = sum(map(size, plans))
    done = total - sum(map(size, waiting))
    with progress("capture", total, "samples", done) as advance:
        context.pool.each(waiting, call, size, advance)


def _merge(layers: Sequence[int], shards: Sequence[Path], folder: Path, top_n: int) -> None:
    def submit(layer: int) -> ray.ObjectRef:
        return _merge_layer.remote(shards, layer, top_n, folder)

    # The moments are written last, so a layer that has them is whole.
    waiting = [lay for lay in layers if not (folder / layer_file("moments", lay)).is_file()]
    with progress("merge", len(layers), "layers", len(layers) - len(waiting)) as advance:
        for _ in spread(waiting, submit):
            advance(1)


@ray.remote(max_retries=3)
def _merge_layer(shards: Sequence[Path], layer: int, top_n: int, folder: Path) -> None:
    from tasks.capture.merge import merge_layer

    for spec, table in merge_layer(shards, layer, top_n):
        write_table(table, spec, folder / layer_file(spec.name, layer))


def _tidy(folder: Path) -> None:
    """The merged layers hold all that the shards held."""
    shutil.rmtree(folder / "shards", ignore_errors=True)


STAGE = Stage("capture", 1, ("samples", "describe"), _parameters, _run, _tidy)
