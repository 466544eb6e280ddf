"""Locate the input files of a report, and read the rows of some neurons from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    EXPERTS,
    NEURON_TYPES,
    NO_SAMPLE,
    ExpertLayout,
    TableSpec,
    layer_prefix,
    read_rows,
    read_table,
)
from neuron_atlas.tasks.artifacts.conditions import Condition, rows_with
from neuron_atlas.tasks.samples.catalog import Catalog, DecodedImages, open_catalog, open_layouts
from neuron_atlas.tasks.samples.image_clusters import ImageClusterFiles
from neuron_atlas.tasks.samples.source import Source


@dataclass(frozen=True)
class LayerFiles:
    """Files of one layer's tables, by the name of the table.

    Most tables have one file per layer. Explanations, simulations and scores have one file per work
    item (some neurons of one explainer), and evidence has one per run that added to it. A table
    that the run lacks has no files.
    """

    layer: int
    tables: Mapping[str, tuple[Path, ...]]

    def __getitem__(self, table: str) -> tuple[Path, ...]:
        return self.tables.get(table, ())


@dataclass(frozen=True)
class SampleFiles:
    """Files and dataset of the samples. source: None if the dataset is not available. images:
    where decoded images are shared; None to decode them each time."""

    samples: tuple[Path, ...]
    descriptions: tuple[Path, ...]
    source: Source | None
    images: DecodedImages | None = None

    def open(
        self, sample_ids: Collection[int], clusters: ImageClusterFiles | None = None
    ) -> Catalog:
        """Open samples with their texts, images and, if given, image clusters."""
        return open_catalog(
            self.samples,
            self.descriptions,
            clusters=clusters,
            sample_ids=sample_ids,
            source=self.source,
            images=self.images,
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
        start = layer_prefix(name, layer)
        found[name] = tuple(path for path in paths if path.name.startswith(start))
    return LayerFiles(layer, found)


def read_types(files: LayerFiles) -> pa.Table:
    """Read `types` of the layer, sorted by neuron."""
    return read_table(files["types"], NEURON_TYPES).sort_by("neuron")


def read_experts(files: LayerFiles) -> ExpertLayout | None:
    """Return how the layer's neurons are numbered by expert; None if it has no experts."""
    return ExpertLayout.from_table(read_table(files[EXPERTS.name], EXPERTS))


def part_names(files: LayerFiles) -> Callable[[int], str]:
    """Return a function that names the expert of a neuron and its index in it, in words; empty in a
    layer without experts."""
    layout = read_experts(files)
    return layout.name if layout else lambda neuron: ""


def read_neurons(
    files: LayerFiles,
    spec: TableSpec,
    neurons: Collection[int],
    columns: Sequence[str] | None = None,
    only: Sequence[Condition] = (),
) -> pa.Table:
    """Read the rows of some neurons from a table, in the order of its files.

    columns: None for all. only: further conditions. Skips files and parts of files that hold none
    of the neurons.
    """
    return read_table(files[spec.name], spec, columns, neurons=neurons, only=only)


class Slot(NamedTuple):
    """An exemplar as capture ranked it.

    role: 0 for a peak in the image, 1 in the text. token: index of the peak within its role.
    """

    sample_id: int
    peak: float
    role: int
    token: int


def read_slots(files: LayerFiles, neurons: Collection[int]) -> dict[int, list[Slot]]:
    """Return the captured exemplars of each neuron, strongest first."""
    ranked: dict[int, list[Slot]] = {neuron: [] for neuron in neurons}
    names = ["sample_id", "peak", "peak_role", "peak_token"]
    for path in files["exemplars"] if neurons else ():
        table = read_rows(path, ["neuron", *names], rows_with("neuron", neurons))
        columns = [_slot_values(table[name], len(table)) for name in names]
        for neuron, *slots in zip(table["neuron"].to_pylist(), *columns, strict=True):
            found = (Slot(*slot) for slot in zip(*slots, strict=True))
            ranked[neuron] = [slot for slot in found if slot.sample_id != NO_SAMPLE]
    return ranked


def by_neuron(table: pa.Table) -> dict[int, list[dict[str, Any]]]:
    """Group rows by neuron, as dicts of plain values, in their order. NaN becomes None."""
    for position, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            values = table.column(position)
            plain = pc.if_else(pc.is_nan(values), None, values)
            table = table.set_column(position, field, plain.cast(field.type))
    grouped: dict[int, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        grouped.setdefault(row["neuron"], []).append(row)
    return grouped


def _slot_values(column: pa.ChunkedArray, neurons: int) -> list[list[Any]]:
    values: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(neurons, -1).tolist() if neurons else []
