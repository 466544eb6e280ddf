"""Near misses: run the subject over samples that an explanation predicts and that are no exemplars.

The rows of a neuron depend on its explanation, and on no other neuron. So all choices of neurons
share one folder, and a run adds files for the explanations that are missing in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import (
    CHOSEN,
    EVIDENCE,
    NEAR_MISSES,
    STRATUM_SIZES,
    layer_file,
    layer_prefix,
    read_table,
    row_count,
    write_table,
)
from neuron_atlas.tasks.artifacts.location import existing_files
from neuron_atlas.tasks.evidence.strata import claim_of
from neuron_atlas.tasks.near_misses.choose import choose_near_misses
from neuron_atlas.tasks.near_misses.predicted import TERM_SAMPLES, index_terms
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.neurons import explanation_texts, image_cluster_files
from neuron_atlas.workflows.run.replay import (
    REPLAY,
    gather_shards,
    replay_items,
    replay_shard,
    replayed_files,
    usable_samples,
)
from neuron_atlas.workflows.run.stage import (
    Files,
    Item,
    Stage,
    StageOutput,
    Step,
    Worker,
    reads_of_samples,
)
from neuron_atlas.workflows.run.store import Manifest, read_manifest
from neuron_atlas.workflows.run.subject import needs_subject

Texts = dict[int, dict[int, str]]
"""Explanations by layer and neuron."""
_INDEX = "index"
_BAR = "near miss"


def make_stage(explainer: str, *, is_one_of_several: bool, uses_clusters: bool) -> Stage:
    """Return the stage for the explanations of one explainer.

    is_one_of_several: the run has several explainers. uses_clusters: see `reads_of_samples`.
    """
    key = explainer if is_one_of_several else ""
    return Stage(
        "near_misses",
        2,
        # It also reads the explanations, only to select rows: a row depends on its own explanation.
        (*reads_of_samples(uses_clusters=uses_clusters), "evidence"),
        partial(_parameters, explainer),
        (
            Step(_BAR, "samples", partial(_index_items, key), _index),
            Step(_BAR, "layers", partial(_choose_items, explainer, key), _choose),
            Step(_BAR, "samples", partial(_shard_items, key), replay_shard, needs_subject),
            Step("gather", "layers", partial(_gather_items, key), gather_shards),
        ),
        partial(_finish, key),
        select=partial(_select, key),
        temporary=(REPLAY, _INDEX),
        explainer=key,
    )


def _parameters(explainer: str, context: Context) -> Mapping[str, Any]:
    return {"near_misses": identity(context.settings.near_misses), "explainer": explainer}


def _index_items(explainer: str, context: Context, folder: Path) -> list[Item]:
    """Return an item for each file of descriptions: where its samples have the terms of the missing
    explanations."""
    missing = _missing(context, explainer, folder)
    if not missing:
        return []
    texts = sorted({text for by_neuron in missing.values() for text in by_neuron.values()})
    concepts = context.paths("samples", "concepts")
    clusters = image_cluster_files(context, explainer)
    described = context.paths("describe", "descriptions")
    return [
        Item(path.stem, row_count(path), (index,), (texts, path, concepts, clusters))
        for path, index in zip(described, _index_files(context, missing), strict=True)
    ]


def _index(
    worker: Worker,
    texts: Sequence[str],
    descriptions: Path,
    concepts: Sequence[Path],
    clusters: ImageClusterFiles,
) -> None:
    (path,) = worker.paths
    write_table(index_terms(texts, descriptions, concepts, clusters), TERM_SAMPLES, path)


def _choose_items(explainer: str, key: str, context: Context, folder: Path) -> list[Item]:
    missing = _missing(context, key, folder)
    index = [folder / name for name in _index_files(context, missing)]
    n_usable = len(usable_samples(context, ["sample_id"])) if missing else 0
    samples, settings = context.paths("samples", "samples"), context.settings.near_misses
    return [
        Item(
            key=f"choose-layer-{layer:03d}-{_digest(texts)}",
            size=1,
            files=(_chosen_file(layer, texts), _sizes_file(layer, texts)),
            inputs=(
                layer,
                explainer,
                texts,
                index,
                [
                    path
                    for path in context.paths("evidence", "evidence")
                    if path.name.startswith(layer_prefix(EVIDENCE.name, layer))
                ],
                samples,
                n_usable,
                settings,
            ),
        )
        for layer, texts in missing.items()
    ]


def _choose(worker: Worker, *inputs: Any) -> None:
    chosen, sizes = choose_near_misses(*inputs)
    chosen_path, sizes_path = worker.paths
    write_table(sizes, STRATUM_SIZES, sizes_path)
    write_table(chosen, CHOSEN, chosen_path)


def _shard_items(explainer: str, context: Context, folder: Path) -> list[Item]:
    """Return the shards of samples to replay; none if all files of layers are there already."""
    missing = _missing(context, explainer, folder)
    files = {_layer_file(layer, texts) for layer, texts in missing.items()}
    if existing_files(folder, files) == files:
        return []
    return replay_items(context, folder, _chosen_paths(folder, missing))


def _gather_items(explainer: str, context: Context, folder: Path) -> list[Item]:
    missing = _missing(context, explainer, folder)
    shards = replayed_files(context, folder, _chosen_paths(folder, missing))
    return [
        Item(
            key=f"gather-layer-{layer:03d}-{_digest(texts)}",
            size=1,
            files=(_layer_file(layer, texts),),
            inputs=(
                layer,
                folder / _chosen_file(layer, texts),
                shards,
                {neuron: claim_of(text) for neuron, text in texts.items()},
            ),
        )
        for layer, texts in missing.items()
    ]


def _finish(explainer: str, context: Context, folder: Path, files: Files) -> StageOutput:
    """List the files of earlier runs and of this one, each with its table of sizes."""
    pairs = _stored_files(folder)
    pairs |= {
        _sizes_file(layer, texts): _layer_file(layer, texts)
        for layer, texts in _missing(context, explainer, folder).items()
    }
    return StageOutput(
        {STRATUM_SIZES.name: sorted(pairs), NEAR_MISSES.name: [pairs[one] for one in sorted(pairs)]}
    )


def _select(explainer: str, context: Context, manifest: Manifest) -> Manifest | None:
    """Return the manifest if it has the near misses of all explanations of this run."""
    folder = context.store.folder(manifest.stage, manifest.fingerprint)
    return None if _missing(context, explainer, folder) else manifest


def _missing(context: Context, explainer: str, folder: Path) -> Texts:
    """Return the explanations of this run that earlier runs did not store, without complete
    layers."""
    stored = [folder / name for name in _stored_files(folder)]
    keys = ("layer", "neuron", "claim")
    rows = read_table(stored, STRATUM_SIZES, keys)
    known = set(zip(*(rows[name].to_pylist() for name in keys), strict=True))
    missing: Texts = {}
    for (layer, neuron), text in explanation_texts(context, explainer).items():
        if (layer, neuron, claim_of(text)) not in known:
            missing.setdefault(layer, {})[neuron] = text
    return missing


def _stored_files(folder: Path) -> dict[str, str]:
    """Return the files of sizes of earlier runs, with their near misses, if both still exist."""
    manifest = read_manifest(folder)
    if manifest is None:
        return {}
    pairs = dict(
        zip(manifest.files[STRATUM_SIZES.name], manifest.files[NEAR_MISSES.name], strict=True)
    )
    existing = existing_files(folder, {*pairs, *pairs.values()})
    return {one: other for one, other in pairs.items() if {one, other} <= existing}


def _index_files(context: Context, missing: Texts) -> list[str]:
    digest = hashlib.sha256(repr([_digest(texts) for texts in missing.values()]).encode())
    names = (path.stem for path in context.paths("describe", "descriptions"))
    return [
        f"{_INDEX}/{digest.hexdigest()[:12]}/{TERM_SAMPLES.name}-{name}.parquet" for name in names
    ]


def _chosen_paths(folder: Path, missing: Texts) -> list[Path]:
    return [folder / _chosen_file(layer, texts) for layer, texts in missing.items()]


def _chosen_file(layer: int, texts: Mapping[int, str]) -> str:
    return f"{REPLAY}/{layer_file(CHOSEN, layer, _digest(texts))}"


def _sizes_file(layer: int, texts: Mapping[int, str]) -> str:
    return layer_file(STRATUM_SIZES, layer, _digest(texts))


def _layer_file(layer: int, texts: Mapping[int, str]) -> str:
    return layer_file(NEAR_MISSES, layer, _digest(texts))


def _digest(texts: Mapping[int, str]) -> str:
    return hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:12]
