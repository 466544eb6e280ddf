"""The files that a report is written from, and the rows of some neurons in them."""

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
    read_rows,
    read_table,
    rows_with,
)
from neuron_atlas.tasks.artifacts.location import reading
from neuron_atlas.tasks.samples.catalog import Catalog, open_catalog, open_layouts
from neuron_atlas.tasks.samples.source import Source


@dataclass(frozen=True)
class LayerFiles:
    """The files of one layer's tables, by the table's name.

    Most tables have one file a layer; explanations, simulations and scores have a file for some
    neurons each, of every explainer. A table that the run does not have has no file.
    """

    layer: int
    tables: Mapping[str, tuple[Path, ...]]

    def __getitem__(self, table: str) -> tuple[Path, ...]:
        return self.tables.get(table, ())


@dataclass(frozen=True)
class SampleFiles:
    """Where samples are looked up, and their images opened; source: None if it is not at hand."""

    samples: tuple[Path, ...]
    descriptions: tuple[Path, ...]
    source: Source | None

    def open(self, sample_ids: Collection[int]) -> Catalog:
        """These samples with their texts and images."""
        return open_catalog(
            self.samples, self.descriptions, sample_ids=sample_ids, source=self.source
        )

    def open_layouts(self, sample_ids: Collection[int]) -> Catalog:
        """These samples with their regions alone, which is little to read."""
        return open_layouts(self.descriptions, sample_ids)


@dataclass(frozen=True)
class ReportFiles:
    """Where a report's numbers are: the files of each table, and of each layer's tables."""

    tables: Mapping[str, tuple[Path, ...]]
    layers: Mapping[int, LayerFiles]
    samples: SampleFiles


def files_of_layer(layer: int, tables: Mapping[str, Sequence[Path]]) -> LayerFiles:
    """Pick one layer's files, which their names tell, from those of whole tables."""
    found = {}
    for name, paths in tables.items():
        start = layer_file(name, layer).removesuffix(".parquet")
        found[name] = tuple(path for path in paths if path.name.startswith(start))
    return LayerFiles(layer, found)


def read_types(files: LayerFiles) -> pa.Table:
    """The layer's `types`, by neuron."""
    return read_table(files["types"], NEURON_TYPES).sort_by("neuron")


def read_neurons(
    files: LayerFiles,
    spec: TableSpec,
    neurons: Collection[int],
    columns: Sequence[str] | None = None,
    only: Sequence[tuple[str, str, Any]] = (),
) -> pa.Table:
    """Read some neurons' rows of a table, in the order of its files; `only`: further conditions.

    Files and row groups without any of the neurons are passed over.
    """
    names = list(columns) if columns is not None else spec.schema.names
    schema = pa.schema([spec.schema.field(name) for name in names])
    if not neurons:
        return schema.empty_table()
    filters = [*rows_with("neuron", neurons), *only]
    tables = [
        read_rows(path, columns=names, filters=filters).select(names).cast(schema)
        for path in files[spec.name]
        if _may_hold(path, min(neurons), max(neurons))
    ]
    return pa.concat_tables([schema.empty_table(), *tables])


def by_neuron(table: pa.Table) -> dict[int, list[dict[str, Any]]]:
    """Rows as plain values, gathered by neuron, in their order; NaN is None."""
    gathered: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        plain = {name: None if value != value else value for name, value in row.items()}
        gathered.setdefault(row["neuron"], []).append(plain)
    return gathered


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
