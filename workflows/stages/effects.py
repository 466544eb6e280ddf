"""Effects: what every neuron writes, what the loss owes to it, and exact ablations as a check."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import MOMENTS, NEURON_TYPES, layer_file, read_table, write_table
from neuron_atlas.tasks.artifacts.effects import ABLATIONS, ATTRIBUTION, EFFECTS, OUTPUT_TOKENS
from neuron_atlas.tasks.effects.choose import ChosenNeuron, choose_neurons
from neuron_atlas.tasks.effects.settings import EffectsSettings
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import RunError
from neuron_atlas.workflows.run.replay import usable_samples
from neuron_atlas.workflows.run.stage import Item, Stage, Step, Worker
from neuron_atlas.workflows.run.subject import needs_subject

_SHARDS = "shards"
_MERGED = "merged"
_LEAST_SAMPLES = 32
"""Samples of a shard, unless more than MOST_SHARDS would be needed."""
_MOST_SHARDS = 64
_ABLATION_SAMPLES = 4
"""Samples of one work item of exact ablation."""


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = identity(context.settings.effects)
    return {
        "effects": {
            name: value for name, value in settings.items() if not name.startswith("faithful_")
        }
    }


def _shard_items(context: Context, folder: Path) -> list[Item]:
    """Return the shards of the samples of the attribution. Raises RunError without samples."""
    settings = context.settings
    layers = context.layers()
    return [
        Item(
            key=name,
            size=len(sample_ids),
            files=tuple(_shard_file(name, layer) for layer in layers),
            inputs=(
                sample_ids,
                context.paths("samples", "samples"),
                context.paths("describe", "descriptions"),
                settings.data.source,
                {layer: _moments(context, layer) for layer in layers},
                settings.effects,
                settings.capture.hook_point,
                settings.capture.image_threads,
            ),
        )
        for name, sample_ids in _shards(context)
    ]


def _attribute(
    worker: Worker,
    sample_ids: Sequence[int],
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    source: Source,
    moments: Mapping[int, Path],
    settings: EffectsSettings,
    hook_point: HookPoint,
    threads: int | None,
) -> None:
    """Write the sums of one shard, a file for each layer."""
    from neuron_atlas.tasks.effects.attribution import attribute
    from neuron_atlas.tasks.effects.scales import neuron_scales
    from neuron_atlas.tasks.samples.catalog import open_catalog
    from neuron_atlas.tasks.subject.encoded import encoded_samples

    catalog = open_catalog(samples, descriptions, sample_ids=sample_ids, source=source)
    loaded = worker.loaded
    sums = attribute(
        loaded.subject,
        lambda: encoded_samples(
            loaded.subject, sample_ids, catalog, threads, 2 * settings.batch_size
        ),
        {
            layer: neuron_scales(read_table(path, MOMENTS), settings.strong_share)
            for layer, path in moments.items()
        },
        hook_point,
        settings.batch_size,
        loaded.n_processes,
        worker.count,
    )
    neurons = len(sums) // len(moments)
    for place, path in enumerate(worker.paths):
        write_table(sums.slice(place * neurons, neurons), ATTRIBUTION, path)


def _token_items(context: Context, folder: Path) -> list[Item]:
    settings = context.settings
    return [
        Item(
            f"tokens-layer-{layer:03d}",
            1,
            (layer_file(OUTPUT_TOKENS, layer),),
            (
                layer,
                _shard_files(context, folder, layer),
                settings.capture.hook_point,
                settings.effects.output_tokens,
            ),
        )
        for layer in context.layers()
    ]


def _write_tokens(
    worker: Worker, layer: int, shards: Sequence[Path], hook_point: HookPoint, k: int
) -> None:
    from neuron_atlas.tasks.effects.attribution import read_sums
    from neuron_atlas.tasks.effects.output_tokens import output_tokens

    up = read_sums([read_table(one, ATTRIBUTION) for one in shards])[3]
    (path,) = worker.paths
    write_table(output_tokens(worker.loaded.subject, layer, up, hook_point, k), OUTPUT_TOKENS, path)


def _merge_items(context: Context, folder: Path) -> list[Item]:
    return [
        Item(
            f"merge-layer-{layer:03d}",
            1,
            (f"{_MERGED}/{layer_file(EFFECTS, layer)}",),
            (layer, _shard_files(context, folder, layer), _moments(context, layer)),
        )
        for layer in context.layers()
    ]


def _merge(worker: Worker, layer: int, shards: Sequence[Path], moments: Path) -> None:
    from neuron_atlas.tasks.effects.effect_rows import effect_rows
    from neuron_atlas.tasks.effects.scales import mean_activations

    (path,) = worker.paths
    write_table(
        effect_rows(layer, shards, mean_activations(read_table(moments, MOMENTS))), EFFECTS, path
    )


def _decide_items(context: Context, folder: Path) -> list[Item]:
    names = tuple(layer_file(EFFECTS, layer) for layer in context.layers())
    merged = [folder / _MERGED / name for name in names]
    return [Item("decide", 1, names, (merged, context.settings.effects))]


def _decide(worker: Worker, merged: Sequence[Path], settings: EffectsSettings) -> None:
    from neuron_atlas.tasks.effects.effect_rows import decide_effects

    decide_effects(merged, worker.paths, settings)


def _ablation_items(context: Context, folder: Path) -> list[Item]:
    """Return the exact ablations, some samples at a time; none without neurons to ablate."""
    settings = context.settings
    names = ["layer", "neuron", "effect", "mean_activation"]
    effects = [folder / layer_file(EFFECTS, layer) for layer in context.layers()]
    types = read_table(
        context.paths("classify", "types"), NEURON_TYPES, ["layer", "neuron", "type"]
    )
    chosen = choose_neurons(
        read_table(effects, EFFECTS, names),
        types,
        settings.effects.ablations,
        settings.effects.seed,
    )
    ids = draw_random(_samples(context), settings.effects.ablation_samples, settings.effects.seed)
    if not chosen:
        return []
    groups = [
        ids[start : start + _ABLATION_SAMPLES] for start in range(0, len(ids), _ABLATION_SAMPLES)
    ]
    return [
        Item(
            key=f"ablations-{number:04d}",
            size=2 * len(chosen) * len(group),
            files=(f"{ABLATIONS.name}-{number:04d}.parquet",),
            inputs=(
                chosen,
                group,
                context.paths("samples", "samples"),
                context.paths("describe", "descriptions"),
                settings.data.source,
                settings.capture.hook_point,
                settings.effects.batch_size,
                settings.capture.image_threads,
            ),
        )
        for number, group in enumerate(groups)
    ]


def _ablate(
    worker: Worker,
    chosen: Sequence[ChosenNeuron],
    sample_ids: Sequence[int],
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    source: Source,
    hook_point: HookPoint,
    batch_size: int,
    threads: int | None,
) -> None:
    from neuron_atlas.tasks.effects.checked import check_attribution
    from neuron_atlas.tasks.samples.catalog import open_catalog
    from neuron_atlas.tasks.subject.encoded import encoded_samples

    catalog = open_catalog(samples, descriptions, sample_ids=sample_ids, source=source)
    subject = worker.loaded.subject
    encoded = list(encoded_samples(subject, sample_ids, catalog, threads, batch_size))
    (path,) = worker.paths
    table = check_attribution(
        subject, chosen, sample_ids, lambda: iter(encoded), hook_point, batch_size, worker.count
    )
    write_table(table, ABLATIONS, path)


def _samples(context: Context) -> list[int]:
    """Return the samples of the attribution, ascending."""
    usable = usable_samples(context, ["sample_id"])["sample_id"].to_pylist()
    if not usable:
        raise RunError("effects: no sample has a text; see the failures of describe")
    return draw_random(usable, context.settings.effects.samples, context.settings.effects.seed)


def _shards(context: Context) -> list[tuple[str, tuple[int, ...]]]:
    """Return the name and samples of each shard; samples of about one length share a shard."""
    drawn = set(_samples(context))
    described = usable_samples(context, ["sample_id", "n_visual", "n_text"])
    lengths = {
        row["sample_id"]: row["n_visual"] + row["n_text"]
        for row in described.to_pylist()
        if row["sample_id"] in drawn
    }
    ids = sorted(drawn, key=lambda one: (-lengths[one], one))
    size = max(_LEAST_SAMPLES, -(-len(ids) // _MOST_SHARDS))
    groups = [tuple(ids[start : start + size]) for start in range(0, len(ids), size)]
    return [
        (f"{number:04d}-{hashlib.sha256(repr(group).encode()).hexdigest()[:8]}", group)
        for number, group in enumerate(groups)
    ]


def _shard_file(name: str, layer: int) -> str:
    return f"{_SHARDS}/{name}/{layer_file(ATTRIBUTION, layer)}"


def _shard_files(context: Context, folder: Path, layer: int) -> list[Path]:
    return [folder / _shard_file(name, layer) for name, _ in _shards(context)]


def _moments(context: Context, layer: int) -> Path:
    return context.folder("capture") / layer_file(MOMENTS, layer)


STAGE = Stage(
    "effects",
    2,
    ("samples", "describe", "capture", "classify"),
    _parameters,
    (
        Step("effects", "samples", _shard_items, _attribute, needs_subject),
        Step("effects", "layers", _token_items, _write_tokens, needs_subject),
        # Needs no subject, but takes less time than to load it again for the step that follows.
        Step("effects", "layers", _merge_items, _merge, needs_subject),
        Step("effects", "", _decide_items, _decide, needs_subject),
        Step("ablation", "rows", _ablation_items, _ablate, needs_subject),
    ),
    temporary=(_SHARDS, _MERGED),
)
