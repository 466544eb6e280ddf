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

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, layer_file, read_table
from neuron_atlas.tasks.artifacts.location import present
from neuron_atlas.tasks.capture.shard_plan import ShardPlan, plan_shards
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import RunFailed
from neuron_atlas.workflows.run.items import unfinished_items
from neuron_atlas.workflows.run.stage import Files, Item, Stage, Step, Worker, Written
from neuron_atlas.workflows.run.store import (
    Manifest,
    count_rows,
    read_json,
    read_manifest,
    write_json,
)
from neuron_atlas.workflows.run.subject import on_the_subject

TABLES = ("exemplars", "traces", "random_traces", "moments", "histograms")

_SHARDS = "shards"
_EXTENT = "extent.json"
_MERGED_TOGETHER = 8
"""Shards that one task merges: with more of them the merge is a tree, and no task waits for, or
reads, more than these."""


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = identity(context.settings.capture)
    del settings["layers"]
    return {"subject": context.subject_identity(), "capture": settings}


def _prepare(context: Context) -> None:
    context.settings.check()  # A missing key must show before hours of capture.


def _extent_items(context: Context, folder: Path) -> list[Item]:
    return [Item("extent", 1, (_EXTENT,))]


def _write_extent(worker: Worker) -> None:
    """Write how many layers the subject has, and how many neurons each of them."""
    from neuron_atlas.tasks.subject.hook_points import decoder_layers, neurons_per_layer

    subject = worker.held.subject
    extent = {"layers": len(decoder_layers(subject)), "neurons": neurons_per_layer(subject)}
    write_json(worker.folder / _EXTENT, extent)


def _shard_items(context: Context, folder: Path) -> list[Item]:
    """The shards of the layers that are not captured yet."""
    layers = _missing(context, folder)
    plans = _plans(context, folder, layers)
    if not plans:
        raise RunFailed("no sample has a text to capture; see the failures of describe")
    samples = tuple(context.paths("samples", "samples"))
    descriptions = tuple(context.paths("describe", "descriptions"))
    return [
        Item(
            key=plan.name,
            size=len(plan.sample_ids),
            files=_tables(layers, f"{_SHARDS}/{plan.name}/"),
            inputs=(plan, samples, descriptions, context.settings.data.source),
        )
        for plan in plans
    ]


def _plan_items(context: Context, folder: Path) -> list[Item]:
    """The shard that takes the most memory, of those to come."""
    waiting = [item.inputs[0] for item in unfinished_items(_shard_items(context, folder), folder)]
    if not waiting:
        return []
    if captured := _captured(folder):
        layers = _missing(context, folder)
        say(f"{'capture':<10} adds layers {_words(layers)} to {_words(captured)}")
    largest = max(waiting, key=lambda one: (one.max_visual + one.max_text, len(one.random_ids)))
    return [Item("memory-plan", 1, (), (largest,))]


def _plan_memory(worker: Worker, shard: ShardPlan) -> list[str]:
    """Say where the capture of a shard keeps what. Raises SubjectError where it does not fit, and
    for a layer that the subject does not have."""
    from neuron_atlas.tasks.capture.demand import memory_plan
    from neuron_atlas.tasks.subject.hook_points import check_layers

    check_layers(worker.held.subject, shard.layers)
    return [f"{'capture':<10} {memory_plan(worker.held.subject, shard, worker.held.sharers)}"]


def _capture(
    worker: Worker,
    plan: ShardPlan,
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    source: Source,
) -> None:
    from neuron_atlas.tasks.capture.shard import capture_shard
    from neuron_atlas.tasks.samples.catalog import open_catalog

    catalog = open_catalog(samples, descriptions, sample_ids=plan.sample_ids, source=source)
    folder = worker.folder / _SHARDS / plan.name
    held = worker.held
    capture_shard(held.subject, plan, catalog, folder, held.sharers, worker.count)


def _merge_items(context: Context, folder: Path) -> list[Item]:
    """Merges of every layer, level by level; complete ones for layers of an earlier run."""
    layers = _missing(context, folder)
    shards = [f"{_SHARDS}/{plan.name}/" for plan in _plans(context, folder, layers)]
    top_n = context.settings.capture.top_n
    complete = [
        Item(f"merge-layer-{layer:03d}", 1, _tables([layer])) for layer in _captured(folder)
    ]
    return complete + [
        Item(
            key=f"{into.removeprefix(_SHARDS).strip('/') or 'merge'}-layer-{layer:03d}",
            size=1,
            files=_tables([layer], into),
            inputs=(layer, tuple(group), into, top_n),
            level=level,
        )
        for level, merges in enumerate(_merge_tree(shards))
        for group, into in merges
        for layer in layers
    ]


def _merge(worker: Worker, layer: int, shards: Sequence[str], into: str, top_n: int) -> None:
    from neuron_atlas.tasks.capture.merge import merge_layer

    folder = worker.folder
    merge_layer([folder / name for name in shards], layer, top_n, folder / into)


def _merge_tree(shards: Sequence[str]) -> list[list[tuple[Sequence[str], str]]]:
    """Return levels of (folders, result) to merge. The result of the last level is ""."""
    levels = []
    while len(shards) > _MERGED_TOGETHER:
        groups = [
            shards[start : start + _MERGED_TOGETHER]
            for start in range(0, len(shards), _MERGED_TOGETHER)
        ]
        merged = [f"{_SHARDS}/merged-{_hash_of_names(group)}/" for group in groups]
        levels.append(list(zip(groups, merged, strict=True)))
        shards = merged
    return [*levels, [(shards, "")]]


def _hash_of_names(folders: Sequence[str]) -> str:
    return hashlib.sha256(repr(list(folders)).encode()).hexdigest()[:16]


def _finish(context: Context, folder: Path, files: Files) -> Written:
    together = sorted({*_captured(folder), *_missing(context, folder)})
    return Written(
        {name: [layer_file(name, layer) for layer in together] for name in TABLES},
        about={"layers": together, "layers_in_all": _extent(folder)["layers"]},
    )


def _select(context: Context, manifest: Manifest) -> Manifest | None:
    """The layers of this run out of all that were captured; None where one is missing."""
    asked = context.settings.capture.layers
    wanted = sorted(range(manifest.about["layers_in_all"]) if asked is None else asked)
    if not set(wanted) <= set(manifest.about["layers"]):
        return None
    files = {name: [layer_file(name, layer) for layer in wanted] for name in TABLES}
    return replace(
        manifest,
        files=files,
        rows=count_rows(context.store.folder(manifest.stage, manifest.fingerprint), files),
        # What comes after is made from these layers alone.
        content=hashlib.sha256(repr((manifest.fingerprint, wanted)).encode()).hexdigest(),
        about=dict(manifest.about) | {"layers": wanted},
    )


def _tables(layers: Sequence[int], folder: str = "") -> tuple[str, ...]:
    return tuple(f"{folder}{layer_file(name, layer)}" for layer in layers for name in TABLES)


def _plans(context: Context, folder: Path, layers: Sequence[int]) -> list[ShardPlan]:
    columns = ["sample_id", "n_visual", "n_text", "status"]
    described = read_table(context.paths("describe", "descriptions"), DESCRIPTIONS, columns)
    return plan_shards(described, layers, context.settings.capture, _extent(folder)["neurons"])


def _wanted(context: Context, folder: Path) -> list[int]:
    """The layers that this run asks for."""
    layers = context.settings.capture.layers
    return sorted(range(_extent(folder)["layers"]) if layers is None else layers)


def _captured(folder: Path) -> list[int]:
    """Return the layers that an earlier run captured, if all their files are still there."""
    manifest = read_manifest(folder)
    layers = [] if manifest is None else manifest.about["layers"]
    there = present(folder, _tables(layers))
    return [layer for layer in layers if there.issuperset(_tables([layer]))]


def _missing(context: Context, folder: Path) -> list[int]:
    captured = _captured(folder)
    return [layer for layer in _wanted(context, folder) if layer not in captured]


def _extent(folder: Path) -> dict[str, int]:
    return read_json(folder / _EXTENT)


def _words(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


STAGE = Stage(
    "capture",
    3,
    ("samples", "describe"),
    _parameters,
    (
        Step("capture", "", _extent_items, _write_extent, on_the_subject),
        Step("capture", "", _plan_items, _plan_memory, on_the_subject),
        Step("capture", "samples", _shard_items, _capture, on_the_subject),
        Step("merge", "layers", _merge_items, _merge),
    ),
    _finish,
    prepare=_prepare,
    select=_select,
    temporary=(_SHARDS,),
)
