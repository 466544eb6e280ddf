"""Capture: run shards of samples through the subject, then merge the shards of every layer.

A layer's rows do not depend on the other layers. So all choices of layers share one folder, and a
run adds the layers that are missing in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import (
    DESCRIPTIONS,
    EXPERTS,
    HISTOGRAMS,
    MOMENTS,
    exemplars_spec,
    in_shard,
    layer_file,
    layer_of,
    read_table,
)
from neuron_atlas.tasks.artifacts.location import existing_files
from neuron_atlas.tasks.artifacts.nonfinite import count_nonfinite
from neuron_atlas.tasks.capture.shard_plan import ShardPlan, plan_shards
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.sae.find import saes_digest
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import RunError
from neuron_atlas.workflows.run.items import unfinished_items
from neuron_atlas.workflows.run.overflow import check_overflow
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Worker
from neuron_atlas.workflows.run.store import (
    Manifest,
    count_rows,
    read_json,
    read_manifest,
    write_json,
)
from neuron_atlas.workflows.run.subject import needs_subject

TABLES = ("exemplars", "moments", "histograms")

_SHARDS = "shards"
_EXTENT = "extent.json"
_MERGED_TOGETHER = 8
"""Maximum number of shards that one task merges. With more shards, the merge is a tree."""


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = identity(context.capture)
    del settings["layers"]
    if sae_path := context.settings.capture.sae.path:
        settings["sae"] = saes_digest(sae_path)
    return {"subject": context.subject_identity(), "capture": settings}


def _prepare(context: Context) -> None:
    context.settings.check()  # A missing key must show up before hours of capture.


def _extent_items(context: Context, folder: Path) -> list[Item]:
    return [Item("extent", 1, (_EXTENT,), (context.capture.hook_point,))]


def _write_extent(worker: Worker, hook_point: str) -> None:
    """Write the subject's number of layers and of parameters, and the experts of its layers."""
    from neuron_atlas.tasks.capture.extent import write_experts

    extent = write_experts(worker.loaded.subject, hook_point, worker.folder)
    write_json(worker.folder / _EXTENT, extent)


def _shard_items(context: Context, folder: Path) -> list[Item]:
    """Return the shards of the layers to capture. Raises RunError if no sample has a text."""
    layers = _missing(context, folder)
    plans = _plans(context, folder, layers)
    if not plans:
        raise RunError("no sample has a text to capture; see the failures of describe")
    samples = tuple(context.paths("samples", "samples"))
    descriptions = tuple(context.paths("describe", "descriptions"))
    return [
        Item(
            key=plan.name,
            size=len(plan.sample_ids),
            files=_shard_tables(layers, f"{_SHARDS}/{plan.name}/"),
            inputs=(plan, samples, descriptions, context.settings.data.source),
        )
        for plan in plans
    ]


def _plan_items(context: Context, folder: Path) -> list[Item]:
    """Return an item for the unfinished shard that needs the most memory."""
    unfinished = [
        item.inputs[0] for item in unfinished_items(_shard_items(context, folder), folder)
    ]
    if not unfinished:
        return []
    if captured := _captured(folder):
        layers = _missing(context, folder)
        print_line(f"{'capture':<10} adds layers {_layer_list(layers)} to {_layer_list(captured)}")
    largest = max(unfinished, key=lambda one: one.max_visual + one.max_text)
    return [Item("memory-plan", 1, (), (largest,))]


def _plan_memory(worker: Worker, shard: ShardPlan) -> list[str]:
    """Return a line on the memory that the capture of a shard needs.

    Raises SubjectError if it does not fit, or if the subject does not have a layer.
    """
    from neuron_atlas.tasks.capture.demand import plan_shard_memory
    from neuron_atlas.tasks.subject.hook_points import check_layers

    check_layers(worker.loaded.subject, shard.layers, shard.settings.hook_point)
    plan = plan_shard_memory(worker.loaded.subject, shard, worker.loaded.n_processes)
    return [f"{'capture':<10} {plan}"]


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
    loaded = worker.loaded
    capture_shard(loaded.subject, plan, catalog, folder, loaded.n_processes, worker.count)


def _merge_items(context: Context, folder: Path) -> list[Item]:
    """Return the merges of every layer, level by level, and finished ones for earlier layers."""
    layers = _missing(context, folder)
    shards = [f"{_SHARDS}/{plan.name}/" for plan in _plans(context, folder, layers)]
    top_n = context.capture.top_n
    earlier = [Item(f"merge-layer-{layer:03d}", 1, _tables([layer])) for layer in _captured(folder)]
    return earlier + [
        Item(
            key=f"{into.removeprefix(_SHARDS).strip('/') or 'merge'}-layer-{layer:03d}",
            size=1,
            files=_shard_tables([layer], into) if into else _tables([layer]),
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
    sources = [folder / name for name in shards]
    merge_layer(sources, layer, top_n, folder / into, is_shard=bool(into))


def _merge_tree(shards: Sequence[str]) -> list[list[tuple[Sequence[str], str]]]:
    """Return the levels of a merge tree as (folders, result folder); the last result is ""."""
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


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    layers = sorted({*_captured(folder), *_missing(context, folder)})
    extent = _extent(folder)
    about = {"layers": layers, "layers_in_all": extent["layers"]}
    return StageOutput(_files(layers, extent.get("with_experts", ())), about=about)


def _check(context: Context) -> None:
    """Show the layers whose activations overflow. Raise RunError if too many do."""
    counts = {
        layer: count_nonfinite(context.folder("capture") / layer_file("moments", layer))
        for layer in context.layers()
    }
    for layer, (nonfinite, total) in counts.items():
        if nonfinite:
            print_line(
                f"{'capture':<10} layer {layer}: {nonfinite:,} of {total:,} visual and text "
                f"activations ({nonfinite / total:.3%}) are infinite or NaN, and count nowhere"
            )
    shares = {layer: nonfinite / max(1, total) for layer, (nonfinite, total) in counts.items()}
    check_overflow(shares, context.settings.capture, context.settings.subject.dtype)


def _select(context: Context, manifest: Manifest) -> Manifest | None:
    """Return the manifest with this run's layers only; None if one of them is missing."""
    choice = context.settings.capture.chosen_layers()
    layers = sorted(range(manifest.about["layers_in_all"]) if choice is None else choice)
    if not set(layers) <= set(manifest.about["layers"]):
        return None
    files = _files(layers, [layer_of(file) for file in manifest.files.get(EXPERTS.name, ())])
    return replace(
        manifest,
        files=files,
        rows=count_rows(context.store.folder(manifest.stage, manifest.fingerprint), files),
        # Later stages depend on these layers only.
        content=hashlib.sha256(repr((manifest.fingerprint, layers)).encode()).hexdigest(),
        about=dict(manifest.about) | {"layers": layers},
    )


def _files(layers: Sequence[int], with_experts: Sequence[int | None]) -> dict[str, list[str]]:
    """Return the files of each table, for some layers."""
    files = {name: [layer_file(name, layer) for layer in layers] for name in TABLES}
    experts = [layer_file(EXPERTS, layer) for layer in layers if layer in with_experts]
    return files | ({EXPERTS.name: experts} if experts else {})


def _tables(layers: Sequence[int]) -> tuple[str, ...]:
    return tuple(layer_file(name, layer) for layer in layers for name in TABLES)


def _shard_tables(layers: Sequence[int], folder: str) -> tuple[str, ...]:
    """Return the files of some layers of a shard, or of merged shards."""
    return tuple(
        f"{folder}{layer_file(in_shard(spec), layer)}"
        for layer in layers
        for spec in (exemplars_spec(1), MOMENTS, HISTOGRAMS)
    )


def _plans(context: Context, folder: Path, layers: Sequence[int]) -> list[ShardPlan]:
    columns = ["sample_id", "n_visual", "n_text", "status"]
    described = read_table(context.paths("describe", "descriptions"), DESCRIPTIONS, columns)
    return plan_shards(described, layers, context.capture, _extent(folder)["parameters"])


def _run_layers(context: Context, folder: Path) -> list[int]:
    """Return the layers of this run."""
    layers = context.settings.capture.chosen_layers()
    return sorted(range(_extent(folder)["layers"]) if layers is None else layers)


def _captured(folder: Path) -> list[int]:
    """Return the layers that earlier runs captured and whose files all still exist."""
    manifest = read_manifest(folder)
    layers = [] if manifest is None else manifest.about["layers"]
    existing = existing_files(folder, _tables(layers))
    return [layer for layer in layers if existing.issuperset(_tables([layer]))]


def _missing(context: Context, folder: Path) -> list[int]:
    captured = _captured(folder)
    return [layer for layer in _run_layers(context, folder) if layer not in captured]


def _extent(folder: Path) -> dict[str, Any]:
    return read_json(folder / _EXTENT)


def _layer_list(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


STAGE = Stage(
    "capture",
    4,
    ("samples", "describe"),
    _parameters,
    (
        Step("capture", "", _extent_items, _write_extent, needs_subject),
        Step("capture", "", _plan_items, _plan_memory, needs_subject),
        Step("capture", "samples", _shard_items, _capture, needs_subject),
        Step("merge", "layers", _merge_items, _merge),
    ),
    _finish,
    prepare=_prepare,
    check=_check,
    select=_select,
    temporary=(_SHARDS,),
)
