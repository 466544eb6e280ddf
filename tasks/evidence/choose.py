"""Choose the samples of each neuron, with purpose, stratum and weight."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from neuron_atlas.tasks.artifacts import CHOSEN, NO_SAMPLE, SAMPLES, read_rows, read_table
from neuron_atlas.tasks.artifacts.conditions import rows_with
from neuron_atlas.tasks.evidence.split import split_samples
from neuron_atlas.tasks.evidence.wanted import Wanted


def choose_evidence(
    layer: int,
    wanted: Wanted,
    exemplars: Path,
    samples: Sequence[Path],
    random_ids: Sequence[int],
    n_usable: int,
    limit: int | None = None,
) -> pa.Table:
    """Return rows of `chosen` for some neurons of a layer, sorted by sample.

    exemplars: the layer's file. samples: the files of `samples`, which list the images of each
    sample. random_ids: samples drawn at random for all neurons; an exemplar of a neuron is never
    one of its random samples. n_usable: usable samples of the dataset. limit: exemplars per neuron;
    None for all. The rows of a neuron do not depend on the other neurons. Images are the same if
    their bytes or their references are equal; re-encoded copies count as different.
    """
    ranked = _ranked(exemplars, wanted.neurons, limit)
    used = {one for neuron in wanted.explained for one in ranked[neuron]}
    images = image_names(samples, used.union(random_ids if wanted.explained else ()))
    rows: list[tuple[Any, ...]] = []
    for neuron in wanted.explained:
        rows += _explained(neuron, ranked[neuron], random_ids, images, n_usable)
    for neuron, (first, stop) in wanted.shown.items():
        strongest = list(enumerate(ranked[neuron]))[first:stop]
        rows += [(neuron, one, rank, "show", "exemplar", 1.0) for rank, one in strongest]
    rows.sort(key=lambda row: (row[1], row[0]))
    names = ("neuron", "sample_id", "rank", "purpose", "stratum", "weight")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True)) if rows else {}
    arrays = {"layer": pa.array([layer] * len(rows), pa.int16())} | {
        name: pa.array(columns.get(name, ()), CHOSEN.schema.field(name).type) for name in names
    }
    return pa.table(arrays).select(CHOSEN.schema.names).cast(CHOSEN.schema)


def image_names(samples: Sequence[Path], sample_ids: Collection[int]) -> dict[int, frozenset[str]]:
    """Return the names of each sample's images: their references and the hash of their bytes. A
    sample may have none."""
    columns = ["sample_id", "images", "image_sha256"]
    images: dict[int, frozenset[str]] = dict.fromkeys(sample_ids, frozenset())
    table = read_table(samples, SAMPLES, columns, sample_ids=sample_ids)
    for sample_id, references, digest in zip(
        *(table[name].to_pylist() for name in columns), strict=True
    ):
        images[sample_id] = frozenset(filter(None, (*(references or ()), digest)))
    return images


def _explained(
    neuron: int,
    exemplars: Sequence[int],
    random_ids: Sequence[int],
    images: Mapping[int, Collection[str]],
    n_usable: int,
) -> list[tuple[Any, ...]]:
    is_exemplar = set(exemplars)
    random = [one for one in random_ids if one not in is_exemplar]
    purposes = split_samples(exemplars, random, images)
    weight = (n_usable - len(exemplars)) / max(1, len(random))
    return [
        (neuron, one, rank, purposes[one], "exemplar", 1.0) for rank, one in enumerate(exemplars)
    ] + [(neuron, one, -1, purposes[one], "random", weight) for one in random]


def _ranked(path: Path, neurons: Sequence[int], limit: int | None) -> dict[int, list[int]]:
    """Return the exemplars of each neuron, strongest first."""
    table = read_rows(path, ["neuron", "sample_id"], rows_with("neuron", neurons))
    return {
        neuron: [one for one in slots[:limit] if one != NO_SAMPLE]
        for neuron, slots in zip(
            table["neuron"].to_pylist(), table["sample_id"].to_pylist(), strict=True
        )
    }
