"""Evidence: run the subject again over the samples that explain, score and show each neuron.

The rows of a neuron do not depend on the other neurons. So all choices of neurons share one folder,
and a run adds files for the neurons that are missing in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import CHOSEN, EVIDENCE, layer_file, write_table
from neuron_atlas.tasks.artifacts.location import existing_files
from neuron_atlas.tasks.evidence.choose import choose_evidence
from neuron_atlas.tasks.evidence.wanted import Wanted, missing_evidence
from neuron_atlas.tasks.samples.random_samples import draw_random
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.replay import (
    REPLAY,
    gather_shards,
    replay_items,
    replay_shard,
    replayed_files,
    usable_samples,
)
from neuron_atlas.workflows.run.stage import Files, Item, Stage, StageOutput, Step, Worker
from neuron_atlas.workflows.run.store import Manifest, read_manifest
from neuron_atlas.workflows.run.subject import needs_subject
from neuron_atlas.workflows.run.wanted_evidence import ByLayer, wanted_evidence


def _parameters(context: Context) -> Mapping[str, Any]:
    return {"evidence": identity(context.settings.evidence)}


def _choose_items(context: Context, folder: Path) -> list[Item]:
    """Return an item for each layer with neurons whose evidence is missing."""
    missing = _missing(context, folder)
    settings = context.settings.evidence
    usable = usable_samples(context, ["sample_id"])["sample_id"].to_pylist()
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
    return replay_items(context, folder, _chosen_paths(folder, missing))


def _gather_items(context: Context, folder: Path) -> list[Item]:
    missing = _missing(context, folder)
    shards = replayed_files(context, folder, _chosen_paths(folder, missing))
    return [
        Item(
            key=f"gather-layer-{layer:03d}-{wanted.digest}",
            size=1,
            files=(_layer_file(layer, wanted),),
            inputs=(layer, folder / _chosen_file(layer, wanted), shards),
        )
        for layer, wanted in missing.items()
    ]


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


def _chosen_paths(folder: Path, missing: ByLayer) -> list[Path]:
    return [folder / _chosen_file(layer, wanted) for layer, wanted in missing.items()]


def _chosen_file(layer: int, wanted: Wanted) -> str:
    return f"{REPLAY}/{layer_file(CHOSEN, layer, wanted.digest)}"


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
        Step("evidence", "samples", _shard_items, replay_shard, needs_subject),
        Step("gather", "layers", _gather_items, gather_shards),
    ),
    _finish,
    select=_select,
    temporary=(REPLAY,),
)
