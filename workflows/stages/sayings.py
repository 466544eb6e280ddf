"""Sayings: what the subject says with an explained neuron turned up.

The rows of a neuron do not depend on the other neurons. So all choices of neurons share one folder,
and a run adds files for the neurons that are missing in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    HISTOGRAMS,
    MOMENTS,
    NEURON_TYPES,
    SCORES,
    layer_file,
    layer_of,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.grouped import SAYINGS
from neuron_atlas.tasks.artifacts.location import existing_files
from neuron_atlas.tasks.report.strongest import select_strongest_neurons
from neuron_atlas.tasks.report.tables import over_all_tokens
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Worker
from neuron_atlas.workflows.run.store import Manifest, read_manifest
from neuron_atlas.workflows.run.subject import needs_subject

_NEURONS = 64
"""Neurons of one work item."""
_HELD = "sayings"

Neuron = tuple[int, int]


@dataclass(frozen=True)
class _Inputs:
    """What the work items of one run read. Picklable. seed: of the choice of the sample."""

    captured: Path
    samples: Sequence[Path]
    descriptions: Sequence[Path]
    source: Source
    hook_point: HookPoint
    max_new_tokens: int
    batch_size: int
    seed: int


def _parameters(context: Context) -> Mapping[str, Any]:
    settings = context.settings
    return {"max_new_tokens": settings.steering.max_new_tokens, "seed": settings.groups.seed}


def _inputs(context: Context) -> _Inputs:
    settings = context.settings
    return _Inputs(
        captured=context.folder("capture"),
        samples=context.paths("samples", "samples"),
        descriptions=context.paths("describe", "descriptions"),
        source=settings.data.source,
        hook_point=settings.capture.hook_point,
        max_new_tokens=settings.steering.max_new_tokens,
        batch_size=settings.capture.batch_size,
        seed=settings.groups.seed,
    )


def _items(context: Context, folder: Path) -> list[Item]:
    """Return parts of the neurons that are missing in the folder."""
    missing = _missing(context, folder)
    inputs = _inputs(context)
    items = []
    for start in range(0, len(missing), _NEURONS):
        part = tuple(missing[start : start + _NEURONS])
        items.append(Item(f"say-{_part(part)}", len(part), _files(part), (part, inputs)))
    return items


def _say(worker: Worker, neurons: tuple[Neuron, ...], inputs: _Inputs) -> None:
    from neuron_atlas.tasks.groups.choose import usable_with_image
    from neuron_atlas.tasks.groups.sayings import clamp_values

    values: dict[Neuron, float] = {}
    for layer in sorted({layer for layer, _ in neurons}):
        mine = [neuron for its_layer, neuron in neurons if its_layer == layer]
        tables = [
            read_table(inputs.captured / layer_file(spec.name, layer), spec, neurons=mine)
            for spec in (HISTOGRAMS, MOMENTS)
        ]
        values |= clamp_values(*tables)
    drawn = draw_random(usable_with_image(inputs.descriptions), 1, inputs.seed)
    table = SAYINGS.schema.empty_table()
    if drawn:
        table = _clamped(worker, values, drawn[0], inputs)
    for path in worker.paths:
        mine = table.filter(pc.equal(table["layer"], layer_of(path.name)))
        write_table(mine, SAYINGS, path)


def _clamped(
    worker: Worker, values: Mapping[Neuron, float], sample_id: int, inputs: _Inputs
) -> pa.Table:
    from neuron_atlas.tasks.groups.sayings import say_clamped
    from neuron_atlas.tasks.samples.catalog import open_catalog

    catalog = open_catalog(
        inputs.samples, inputs.descriptions, sample_ids=[sample_id], source=inputs.source
    )
    return say_clamped(
        worker.loaded.subject,
        values,
        catalog.open_images(sample_id)[0],
        sample_id,
        inputs.hook_point,
        inputs.max_new_tokens,
        inputs.batch_size,
        worker.count,
    )


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    """List the files of earlier runs and of this one, with the neurons of each."""
    held = dict(_stored(folder))
    missing = _missing(context, folder)
    for start in range(0, len(missing), _NEURONS):
        part = tuple(missing[start : start + _NEURONS])
        for name in _files(part):
            held[name] = [one for one in part if one[0] == layer_of(name)]
    return StageOutput({SAYINGS.name: sorted(held)}, about={_HELD: held})


def _select(context: Context, manifest: Manifest) -> Manifest | None:
    """Return the manifest if it has all neurons of this run."""
    held = {tuple(one) for some in manifest.about[_HELD].values() for one in some}
    return manifest if held.issuperset(_wanted(context)) else None


def _wanted(context: Context) -> list[Neuron]:
    """Return the strongest explained neurons of each type, as the page shows them."""
    count = context.settings.steering.neurons_per_type
    if not count:
        return []
    chosen_from = (("classify", "types"), ("explain", "explanations"), ("score", "scores"))
    return _strongest(
        tuple(tuple(context.paths(stage, table)) for stage, table in chosen_from),
        tuple(context.identity(stage) for stage, _ in chosen_from),
        count,
    )


@lru_cache(maxsize=1)
def _strongest(
    files: tuple[tuple[Path, ...], ...], identities: tuple[str, ...], count: int
) -> list[Neuron]:
    """Read the tables once for all lists of items. identities: of their content."""
    types_files, explained_files, scores_files = files
    types = read_table(types_files, NEURON_TYPES)
    explained = read_table(explained_files, EXPLANATIONS)
    explained = explained.filter(pc.equal(explained["status"], "ok"))
    keys = explained.select(["layer", "neuron"])
    types = types.join(
        keys.group_by(["layer", "neuron"]).aggregate([]), ["layer", "neuron"], join_type="left semi"
    )
    scores = over_all_tokens(read_table(scores_files, SCORES))
    chosen = select_strongest_neurons(types, explained, scores, count)
    return sorted((layer, neuron) for layer, neuron, _ in chosen)


def _stored(folder: Path) -> dict[str, list[Neuron]]:
    """Return the neurons of each file of earlier runs that still exists."""
    manifest = read_manifest(folder)
    held = {} if manifest is None else manifest.about[_HELD]
    return {
        name: [(layer, neuron) for layer, neuron in held[name]]
        for name in sorted(existing_files(folder, held))
    }


def _missing(context: Context, folder: Path) -> list[Neuron]:
    stored = {one for some in _stored(folder).values() for one in some}
    return [one for one in _wanted(context) if one not in stored]


def _files(neurons: Sequence[Neuron]) -> tuple[str, ...]:
    """Return a file for each layer of some neurons. Their names hash the neurons."""
    layers = sorted({layer for layer, _ in neurons})
    return tuple(layer_file(SAYINGS, layer, _part(neurons)) for layer in layers)


def _part(neurons: Sequence[Neuron]) -> str:
    return hashlib.sha256(repr(tuple(neurons)).encode()).hexdigest()[:12]


STAGE = Stage(
    "sayings",
    1,
    # It reads explanations and scores only to select neurons, on which no row depends.
    ("samples", "describe", "capture"),
    _parameters,
    (Step("sayings", "neurons", _items, _say, needs_subject),),
    _finish,
    select=_select,
)
