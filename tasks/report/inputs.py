"""Locate the input files of a report, and read the rows of some neurons from them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts import (
    NEURON_TYPES,
    TableSpec,
    layer_file,
    read_parquet,
    read_table,
    rows_with,
)
from neuron_atlas.tasks.artifacts.location import open_for_arrow
from neuron_atlas.tasks.samples.catalog import Catalog, open_catalog, open_layouts
from neuron_atlas.tasks.samples.source import Source


@dataclass(frozen=True)
class LayerFiles:
    """Files of one layer's tables, by the name of the table.

    Most tables have one file per layer. Explanations, simulations and scores have one file per work
    item (some neurons of one explainer). A table that the run lacks has no files.
    """

    layer: int
    tables: Mapping[str, tuple[Path, ...]]

    def __getitem__(self, table: str) -> tuple[Path, ...]:
        return self.tables.get(table, ())


@dataclass(frozen=True)
class SampleFiles:
    """Files and dataset of the samples. source: None if the dataset is not available."""

    samples: tuple[Path, ...]
    descriptions: tuple[Path, ...]
    source: Source | None

    def open(self, sample_ids: Collection[int]) -> Catalog:
        """Open samples with their texts and images."""
        return open_catalog(
            self.samples, self.descriptions, sample_ids=sample_ids, source=self.source
        )

    def open_layouts(self, sample_ids: Collection[int]) -> Catalog:
        """Open samples with their regions only, which reads little."""
        return open_layouts(self.descriptions, sample_ids)


@dataclass(frozen=True)
class ReportFiles:
    """Input files of a report: by table, by layer and table, and of the samples."""

    tables: Mapping[str, tuple[Path, ...]]
    layers: Mapping[int, LayerFiles]
    samples: SampleFiles


def files_of_layer(layer: int, tables: Mapping[str, Sequence[Path]]) -> LayerFiles:
    """Select one layer's files, by name, from the files of all tables."""
    found = {}
    for name, paths in tables.items():
        start = layer_file(name, layer).removesuffix(".parquet")
        found[name] = tuple(path for path in paths if path.name.startswith(start))
    return LayerFiles(layer, found)


def read_types(files: LayerFiles) -> pa.Table:
    """Read `types` of the layer, sorted by neuron."""
    return read_table(files["types"], NEURON_TYPES).sort_by("neuron")


def read_neurons(
    files: LayerFiles,
    spec: TableSpec,
    neurons: Collection[int],
    columns: Sequence[str] | None = None,
    only: Sequence[tuple[str, str, Any]] = (),
) -> pa.Table:
    """Read the rows of some neurons from a table, in the order of its files.

    columns: None for all. only: further conditions, as Parquet filters. Skips files and row groups
    that hold none of the neurons.
    """
    names = list(columns) if columns is not None else spec.schema.names
    schema = pa.schema([spec.schema.field(name) for name in names])
    if not neurons:
        return schema.empty_table()
    filters = [*rows_with("neuron", neurons), *only]
    tables = [
        read_parquet(path, columns=names, filters=filters).select(names).cast(schema)
        for path in files[spec.name]
        if _may_hold(path, min(neurons), max(neurons))
    ]
    return pa.concat_tables([schema.empty_table(), *tables])


def by_neuron(table: pa.Table) -> dict[int, list[dict[str, Any]]]:
    """Group rows by neuron, as dicts of plain values, in their order. NaN becomes None."""
    grouped: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        plain = {name: None if value != value else value for name, value in row.items()}
        grouped.setdefault(row["neuron"], []).append(plain)
    return grouped


def _may_hold(path: Path, first: int, last: int) -> bool:
    """Return whether a file may hold neurons `first` to `last`. Reads only its footer."""
    with open_for_arrow(path) as file:
        metadata = pq.read_metadata(file)
    # No list column precedes it, so its index among the leaf columns is the same.
    position = metadata.schema.names.index("neuron")
    for number in range(metadata.num_row_groups):
        stats = metadata.row_group(number).column(position).statistics
        if stats is None or not stats.has_min_max or (stats.min <= last and stats.max >= first):
            return True
    return False
