"""Capture: shards of samples through the subject, then the shards of every layer merged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from tasks.artifacts import DESCRIPTIONS, layer_file, read_table
from tasks.artifacts.location import remove_folder, whole_folders
from tasks.capture.shard_plan import ShardPlan, plan_shards
from tasks.settings import identity
from workflows.cluster import spread
from workflows.errors import RunFailed
from workflows.places import task
from workflows.progress import progress, say
from workflows.stage import Context, Stage, Written, count_rows

ARTIFACTS = ("exemplars", "traces", "random_traces", "moments", "histograms")

_MERGED_AT_ONCE = 8
"""Shards that one task merges: with more of them the merge is a tree, and no task waits for, or
reads, more than these."""


def _parameters(context: Context) -> Mapping[str, Any]:
    return {
        "subject": context.subject_identity(),
        "capture": identity(context.settings.capture),
    }


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings.capture
    described = context.paths("describe", "descriptions")
    columns = ["sample_id", "n_visual", "n_text", "status"]
    context.settings.check()  # For want of a key, hours would be in vain.
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
    captured = whole_folders(shards[0].parent, [plan.name for plan in plans])
    waiting = [plan for plan in plans if plan.name not in captured]
    listed = context.paths("samples", "samples")
    source = context.settings.data.source

    def call(actor: Any, plan: ShardPlan) -> ray.ObjectRef:
        return actor.capture.remote(plan, listed, described, source, folders[plan])

    def size(plan: ShardPlan) -> int:
        return len(plan.sample_ids)

    if waiting:
        largest = max(
            waiting, key=lambda plan: (plan.max_visual + plan.max_text, len(plan.random_ids))
        )
        say(f"{'capture':<10} {context.pool.memory_plan(largest)}")
    total = sum(map(size, plans))
    done = total - sum(map(size, waiting))
    with progress("capture", total, "samples", done) as advance:
        context.pool.each(waiting, call, size, advance)


Step = tuple[int, Sequence[Path], Path]
"""One merge: the layer, the folders that are merged, and the folder of the result."""


def _merge(layers: Sequence[int], shards: Sequence[Path], folder: Path, top_n: int) -> None:
    levels = [
        [(layer, group, into) for layer in layers for group, into in level]
        for level in _merge_tree(shards, folder)
    ]

    def is_whole(step: Step) -> bool:
        layer, _, into = step
        # The moments are written last, so a layer that has them is whole.
        return (into / layer_file("moments", layer)).is_file()

    def submit(step: Step) -> ray.ObjectRef:
        layer, group, into = step
        return _merge_layer.remote(group, layer, top_n, into)

    waiting = [[step for step in level if not is_whole(step)] for level in levels]
    total = sum(map(len, levels))
    with progress("merge", total, "layers", total - sum(map(len, waiting))) as advance:
        for level in waiting:
            for _ in spread(level, submit):
                advance(1)


def _merge_tree(shards: Sequence[Path], folder: Path) -> list[list[tuple[Sequence[Path], Path]]]:
    """What is merged into what: levels of (folders, result), of which the last fills `folder`."""
    levels = []
    while len(shards) > _MERGED_AT_ONCE:
        groups = [
            shards[start : start + _MERGED_AT_ONCE]
            for start in range(0, len(shards), _MERGED_AT_ONCE)
        ]
        merged = [shards[0].parent / f"merged-{_hash_of_names(group)}" for group in groups]
        levels.append(list(zip(groups, merged, strict=True)))
        shards = merged
    return [*levels, [(shards, folder)]]


def _hash_of_names(folders: Sequence[Path]) -> str:
    return hashlib.sha256(repr([folder.name for folder in folders]).encode()).hexdigest()[:16]


@task()
def _merge_layer(shards: Sequence[Path], layer: int, top_n: int, folder: Path) -> None:
    from tasks.capture.merge import merge_layer

    merge_layer(shards, layer, top_n, folder)


def _tidy(folder: Path) -> None:
    """The merged layers hold all that the shards held."""
    remove_folder(folder / "shards")


STAGE = Stage("capture", 2, ("samples", "describe"), _parameters, _run, _tidy)
