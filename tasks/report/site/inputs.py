"""The files that a site is written from, and the part of them that one work item reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    NEURON_TYPES,
    SCORES,
    SIMULATIONS,
    TableSpec,
    read_parquet,
    read_table,
    row_count,
)
from neuron_atlas.tasks.artifacts.location import reading
from neuron_atlas.tasks.samples.source import Source

PART = 512
"""Neurons that are read together; a multiple of `layout.CHUNK`. With 50 traces of 730 tokens each
they take some 40 MB."""


@dataclass(frozen=True)
class LayerFiles:
    """The tables of one layer. `captured` and `responses` are whole layers; explanations,
    simulations and scores have a file for some neurons each, of every explainer."""

    layer: int
    captured: Mapping[str, Path]
    """By name: traces, random_traces, exemplars, histograms, moments."""
    types: Path
    tested_types: Path | None
    responses: Path
    explanations: tuple[Path, ...]
    simulations: tuple[Path, ...]
    scores: tuple[Path, ...]


@dataclass(frozen=True)
class SampleFiles:
    """Where samples are looked up, and their images opened."""

    samples: tuple[Path, ...]
    descriptions: tuple[Path, ...]
    source: Source


@dataclass(frozen=True)
class SitePart:
    """Rows `start` to `stop` of a layer's `types`: the neurons of one work item."""

    layer: int
    start: int
    stop: int


def cut_layer(files: LayerFiles) -> list[SitePart]:
    """The parts of one layer."""
    rows = row_count(files.types)
    return [SitePart(files.layer, start, min(start + PART, rows)) for start in range(0, rows, PART)]


def read_types(files: LayerFiles) -> pa.Table:
    """The layer's `types`, by neuron."""
    return read_table(files.types, NEURON_TYPES).sort_by("neuron")


def read_neurons(
    paths: Path | Sequence[Path],
    spec: TableSpec,
    neurons: Sequence[int],
    columns: Sequence[str] | None = None,
    only: Sequence[tuple[str, str, Any]] = (),
) -> pa.Table:
    """Rows of the given neurons (sorted); `only`: further conditions. Whole row groups without
    any of them are passed over."""
    names = list(columns) if columns is not None else spec.schema.names
    schema = pa.schema([spec.schema.field(name) for name in names])
    paths = paths if isinstance(paths, Sequence) else [paths]
    if not len(neurons):
        return schema.empty_table()
    filters = [("neuron", ">=", int(neurons[0])), ("neuron", "<=", int(neurons[-1])), *only]
    tables = [
        read_parquet(path, columns=names, filters=filters).select(names)
        for path in paths
        if _may_hold(path, int(neurons[0]), int(neurons[-1]))
    ]
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


def by_neuron(table: pa.Table) -> dict[int, list[dict[str, Any]]]:
    """Rows as plain values, gathered by neuron, in their order; NaN is None."""
    gathered: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        plain = {name: None if value != value else value for name, value in row.items()}
        gathered.setdefault(row["neuron"], []).append(plain)
    return gathered


def explained_rows(files: LayerFiles, neurons: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """What every explainer said of the neurons."""
    columns = [
        "neuron", "explainer", "text", "evidence_for", "evidence_against", "confidence", "status",
        "reason", "model",
    ]  # fmt: skip
    return by_neuron(read_neurons(files.explanations, EXPLANATIONS, neurons, columns))


def scored_rows(files: LayerFiles, neurons: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Every score of the neurons."""
    return by_neuron(read_neurons(files.scores, SCORES, neurons).drop_columns(["layer", "type"]))


def simulated_traces(files: LayerFiles, neurons: Sequence[int]) -> pa.Table:
    """What the neurons' own explanations predict on the scorer's samples."""
    columns = ["neuron", "explainer", "simulator", "sample_id", "draw", "visual", "text"]
    only = [("claim", "==", "own"), ("purpose", "==", "scorer"), ("status", "==", "ok")]
    return read_neurons(files.simulations, SIMULATIONS, neurons, columns, only)


def _may_hold(path: Path, first: int, last: int) -> bool:
    """Whether a file's statistics allow a neuron of the range; only its footer is read."""
    with reading(path) as file:
        metadata = pq.read_metadata(file)
    place = metadata.schema.names.index("neuron")  # Before any list, so the same among leaves.
    for number in range(metadata.num_row_groups):
        known = metadata.row_group(number).column(place).statistics
        if known is None or not known.has_min_max or (known.min <= last and known.max >= first):
            return True
    return False
