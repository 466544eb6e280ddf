"""Capture: shards of samples through the subject, then the shards of every layer merged.

No layer's rows depend on which others are captured. So the folder is one for all choices of
layers, and a run adds those that are not there yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, layer_file, read_table
from neuron_atlas.tasks.artifacts.location import remove_folder, whole_folders
from neuron_atlas.tasks.capture.shard_plan import ShardPlan, plan_shards
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.progress import progress, say
from neuron_atlas.workflows.cluster.spread import spread
from neuron_atlas.workflows.run.errors import RunFailed
from neuron_atlas.workflows.run.stage import Context, Stage, Written, count_rows
from neuron_atlas.workflows.run.store import Manifest

ARTIFACTS = ("exemplars", "traces", "random_traces", "moments", "histograms")

_MERGED_AT_ONCE = 8
"""Shards that one task merges: with more of them the merge is a tree, and no task waits for, or
reads, more than these."""


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = identity(context.settings.capture)
    del settings["layers"]
    return {"subject": context.subject_identity(), "capture": settings}


def _run(context: Context, folder: Path) -> Written:
    settings = context.settings.capture
    described = context.paths("describe", "descriptions")
    columns = ["sample_id", "n_visual", "n_text", "status"]
    context.settings.check()  # For want of a key, hours would be in vain.
    extent = context.extent()
    known = () if context.kept is None else context.kept.about["layers"]
    layers = [layer for layer in extent.layers if layer not in known]
    if known:
        say(f"{'capture':<10} adds layers {_words(layers)} to {_words(known)}")
    plans = plan_shards(
        read_table(described, DESCRIPTIONS, columns),
        layers,
        settings,
        extent.neurons_per_layer,
    )
    if not plans:
        raise RunFailed("no sample has a text to capture; see the failures of describe")
    shards = [folder / "shards" / plan.name for plan in plans]
    _capture(context, plans, shards, described)
    context.pool.close()
    with context.timed("merge"):
        _merge(layers, shards, folder, settings.top_n)
    together = sorted({*known, *layers})
    files = {name: [layer_file(name, layer) for layer in together] for name in ARTIFACTS}
    about = {"layers": together, "layers_in_all": extent.layers_in_all}
    return Written(files, count_rows(folder, files), about=about)


def _select(context: Context, manifest: Manifest) -> Manifest | None:
    """The layers of this run out of all that were captured; None where one is missing."""
    asked = context.settings.capture.layers
    wanted = sorted(range(manifest.about["layers_in_all"]) if asked is None else asked)
    if not set(wanted) <= set(manifest.about["layers"]):
        return None
    files = {name: [layer_file(name, layer) for layer in wanted] for name in ARTIFACTS}
    folder = context.store.folder(manifest.stage, manifest.fingerprint)
    return replace(
        manifest,
        files=files,
        rows=count_rows(folder, files),
        # What comes after is made from these layers alone.
        content=hashlib.sha256(repr((manifest.fingerprint, wanted)).encode()).hexdigest(),
        about=dict(manifest.about) | {"layers": wanted},
    )


def _words(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


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
    from neuron_atlas.tasks.capture.merge import merge_layer

    merge_layer(shards, layer, top_n, folder)


def _tidy(folder: Path) -> None:
    """The merged layers hold all that the shards held."""
    remove_folder(folder / "shards")


STAGE = Stage("capture", 3, ("samples", "describe"), _parameters, _run, _tidy, select=_select)
