"""Evidence: run the subject again over the samples that explain, score and show each neuron.

The rows of a neuron do not depend on the other neurons. So all choices of neurons share one folder,
and a run adds files for the neurons that are missing in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    CHOSEN,
    DESCRIPTIONS,
    EVIDENCE,
    USABLE,
    layer_file,
    read_table,
    write_table,
)
from neuron_atlas.tasks.artifacts.location import existing_files
from neuron_atlas.tasks.evidence.choose import choose_evidence, image_names
from neuron_atlas.tasks.evidence.gather import gather_layer
from neuron_atlas.tasks.evidence.shards import ReplayShard, plan_replay
from neuron_atlas.tasks.evidence.wanted import Wanted, missing_evidence
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Worker
from neuron_atlas.workflows.run.store import Manifest, read_manifest
from neuron_atlas.workflows.run.subject import needs_subject
from neuron_atlas.workflows.run.wanted_evidence import ByLayer, wanted_evidence

_REPLAY = "replay"
"""Folder for the chosen rows and for the shards, until the layers' files are complete."""


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"evidence": identity(context.settings.evidence)}


def _choose_items(context: Context, folder: Path) -> list[Item]:
    """Return an item for each layer with neurons whose evidence is missing."""
    missing = _missing(context, folder)
    settings = context.settings.evidence
    usable = _usable(context, ["sample_id"])["sample_id"].to_pylist()
    random_ids = draw_random(usable, settings.random_samples, settings.seed)
    if missing and (stored := _stored(context, folder)):
        before, new = (
            sum(len(one.explained) for one in some)
            for some in ([one for layer in stored.values() for one in layer], missing.values())
        )
        print_line(f"{'evidence':<10} adds {new:,} neurons to {before:,}")
    return [
        Item(
            key=f"choose-layer-{layer:03d}-{wanted.digest}",
            size=1,
            files=(_chosen_file(layer, wanted),),
            inputs=(
                layer,
                wanted,
                context.folder("capture") / layer_file("exemplars", layer),
                context.paths("samples", "samples"),
                random_ids,
                len(usable),
                settings.exemplars,
            ),
        )
        for layer, wanted in missing.items()
    ]


def _choose(worker: Worker, *inputs: Any) -> None:
    (path,) = worker.paths
    write_table(choose_evidence(*inputs), CHOSEN, path)


def _shard_items(context: Context, folder: Path) -> list[Item]:
    """Return the shards of samples to replay; none if all files of layers are there already."""
    missing = _missing(context, folder)
    files = {_layer_file(layer, wanted) for layer, wanted in missing.items()}
    if existing_files(folder, files) == files:
        return []
    settings = context.settings
    chosen = tuple(folder / _chosen_file(layer, wanted) for layer, wanted in missing.items())
    inputs = (
        chosen,
        context.paths("samples", "samples"),
        context.paths("describe", "descriptions"),
        settings.data.source,
        settings.capture.hook_point,
        settings.capture.batch_size,
        settings.capture.image_threads,
    )
    return [
        Item(shard.name, len(shard.sample_ids), (_shard_file(missing, shard),), (shard, *inputs))
        for shard in _plan(context, folder, missing)
    ]


def _replay(
    worker: Worker,
    shard: ReplayShard,
    chosen: Sequence[Path],
    samples: Sequence[Path],
    descriptions: Sequence[Path],
    source: Source,
    hook_point: HookPoint,
    batch_size: int,
    threads: int | None,
) -> None:
    from neuron_atlas.tasks.evidence.replay import replay
    from neuron_atlas.tasks.samples.catalog import open_catalog

    ids = shard.sample_ids
    rows = read_table(chosen, CHOSEN, sample_ids=ids)
    catalog = open_catalog(samples, descriptions, sample_ids=ids, source=source)
    subject = worker.loaded.subject
    table = replay(subject, rows, catalog, hook_point, batch_size, threads, worker.count)
    (path,) = worker.paths
    write_table(table, EVIDENCE, path)


def _gather_items(context: Context, folder: Path) -> list[Item]:
    missing = _missing(context, folder)
    shards = [folder / _shard_file(missing, one) for one in _plan(context, folder, missing)]
    return [
        Item(
            key=f"gather-layer-{layer:03d}-{wanted.digest}",
            size=1,
            files=(_layer_file(layer, wanted),),
            inputs=(layer, folder / _chosen_file(layer, wanted), shards),
        )
        for layer, wanted in missing.items()
    ]


def _gather(worker: Worker, layer: int, chosen: Path, shards: Sequence[Path]) -> None:
    (path,) = worker.paths
    gather_layer(layer, chosen, shards, path)


def _finish(context: Context, folder: Path, files: Files) -> StageOutput:
    """List the files of earlier runs and of this one, with the neurons of each."""
    holds = {
        _layer_file(layer, wanted): {"layer": layer, **wanted.to_json()}
        for layer, wanted in (
            *((layer, one) for layer, some in _stored(context, folder).items() for one in some),
            *_missing(context, folder).items(),
        )
    }
    return StageOutput({EVIDENCE.name: sorted(holds)}, about={"holds": holds})


def _select(context: Context, manifest: Manifest) -> Manifest | None:
    """Return the manifest if it has the evidence of all neurons of this run."""
    stored = _by_layer(manifest)
    wanted = wanted_evidence(context)
    complete = all(
        not missing_evidence(one, stored.get(layer, ())).neurons for layer, one in wanted.items()
    )
    return manifest if complete else None


def _stored(context: Context, folder: Path) -> dict[int, list[Wanted]]:
    """Return the evidence of earlier runs by layer, from those of its files that still exist."""
    manifest = read_manifest(folder)
    return {} if manifest is None else _by_layer(manifest, folder)


def _by_layer(manifest: Manifest, folder: Path | None = None) -> dict[int, list[Wanted]]:
    holds = manifest.about["holds"]
    existing = holds.keys() if folder is None else existing_files(folder, holds)
    stored: dict[int, list[Wanted]] = {}
    for name in sorted(existing):
        stored.setdefault(holds[name]["layer"], []).append(Wanted.from_json(holds[name]))
    return stored


def _missing(context: Context, folder: Path) -> ByLayer:
    """Return what this run needs and earlier runs did not store, without complete layers."""
    stored = _stored(context, folder)
    missing = {
        layer: missing_evidence(wanted, stored.get(layer, ()))
        for layer, wanted in wanted_evidence(context).items()
    }
    return {layer: wanted for layer, wanted in missing.items() if wanted.neurons}


def _plan(context: Context, folder: Path, missing: ByLayer) -> list[ReplayShard]:
    """Return the shards of the samples that the missing rows need."""
    chosen = [folder / _chosen_file(layer, wanted) for layer, wanted in missing.items()]
    ids = read_table(chosen, CHOSEN, ["sample_id"])["sample_id"].to_numpy()
    distinct, rows = np.unique(ids, return_counts=True)
    described = _usable(context, ["sample_id", "n_visual", "n_text"])
    tokens = dict(
        zip(
            described["sample_id"].to_pylist(),
            pc.add(described["n_visual"], described["n_text"]).to_pylist(),
            strict=True,
        )
    )
    trace_bytes = {
        one: 2 * count * tokens[one]
        for one, count in zip(distinct.tolist(), rows.tolist(), strict=True)
    }
    return plan_replay(trace_bytes, image_names(context.paths("samples", "samples"), trace_bytes))


def _usable(context: Context, columns: Sequence[str]) -> pa.Table:
    """Return the usable samples' rows of `descriptions`."""
    described = read_table(
        context.paths("describe", "descriptions"), DESCRIPTIONS, [*columns, "status"]
    )
    return described.filter(pc.is_in(described["status"], value_set=pa.array(USABLE)))


def _chosen_file(layer: int, wanted: Wanted) -> str:
    return f"{_REPLAY}/{layer_file(CHOSEN, layer, wanted.digest)}"


def _shard_file(missing: ByLayer, shard: ReplayShard) -> str:
    wanted = repr([(layer, one.digest) for layer, one in missing.items()])
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    return f"{_REPLAY}/{digest}/{shard.name}.{EVIDENCE.format}"


def _layer_file(layer: int, wanted: Wanted) -> str:
    return layer_file(EVIDENCE, layer, wanted.digest)


STAGE = Stage(
    "evidence",
    1,
    # It reads the types only to select neurons, on which the rows of a neuron do not depend.
    ("samples", "describe", "capture"),
    _parameters,
    (
        Step("evidence", "layers", _choose_items, _choose),
        Step("evidence", "samples", _shard_items, _replay, needs_subject),
        Step("gather", "layers", _gather_items, _gather),
    ),
    _finish,
    select=_select,
    temporary=(_REPLAY,),
)
