"""Read and write tables as Parquet or Arrow files. A file is either complete or absent."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts.arrow_files import (
    SUFFIX,
    arrow_batches,
    arrow_row_count,
    read_arrow,
    write_arrow,
)
from neuron_atlas.tasks.artifacts.columns import TableSpec
from neuron_atlas.tasks.artifacts.conditions import Condition, rows_with
from neuron_atlas.tasks.artifacts.damaged import raise_if_damaged
from neuron_atlas.tasks.artifacts.location import atomic_file, open_for_arrow
from neuron_atlas.tasks.artifacts.old_tables import check_columns
from neuron_atlas.tasks.artifacts.row_groups import read_row_groups

ROW_GROUP = 16_384
"""Rows per row group of a Parquet file: the traces of a few hundred neurons, so that reading a few
neurons does not read their whole layer."""

_SUFFIXES = (".parquet", SUFFIX)
_LAYER = re.compile(r"-layer-(\d+)[-.]")


def layer_file(artifact: str | TableSpec, layer: int, part: str = "") -> str:
    """Return the name of the file that holds one layer of an artifact.

    artifact: its spec, or the name of an artifact of Parquet files. part: name of the part of the
    layer, if an artifact has several files per layer.
    """
    name, suffix = (
        (artifact, "parquet") if isinstance(artifact, str) else (artifact.name, artifact.format)
    )
    return f"{layer_prefix(name, layer)}{f'-{part}' if part else ''}.{suffix}"


def layer_prefix(artifact: str, layer: int) -> str:
    """Return what the names of all files of one layer of an artifact start with."""
    return f"{artifact}-layer-{layer:03d}"


def layer_of(file: str) -> int | None:
    """Return the layer that a table's file holds; None if it is no table of one layer."""
    found = _LAYER.search(file.rpartition("/")[2]) if artifact_of(file) else None
    return int(found[1]) if found else None


def artifact_of(file: str) -> str | None:
    """Return the artifact that a table's file belongs to; None if the file is no table.

    It is the file name up to the first "-".
    """
    name = file.rpartition("/")[2]
    if not name.endswith(_SUFFIXES):
        return None
    return name.rpartition(".")[0].split("-")[0]


def write_table(table: pa.Table, spec: TableSpec, path: Path) -> None:
    """Write `table` as one file, in the format of `spec`, that is either complete or absent.

    Raises ValueError if the columns or a status do not match `spec`, and DiskFullError.
    """
    write_table_parts([table], spec, path)


def write_table_parts(tables: Iterable[pa.Table], spec: TableSpec, path: Path) -> None:
    """Concatenate tables into one file; see `write_table`. Holds one table at a time."""
    conforming = (_conform(table, spec) for table in tables)
    with atomic_file(path) as unfinished:
        if spec.format == "arrow":
            write_arrow(
                conforming, spec.schema, spec.key, unfinished, spec.compression, spec.batch_rows
            )
            return
        with pq.ParquetWriter(
            unfinished,
            spec.schema,
            compression="zstd",
            use_dictionary=spec.dictionary,
            use_byte_stream_split=False if spec.dictionary else _lists_of_floats(spec.schema),
        ) as writer:
            for table in conforming:
                writer.write_table(table, row_group_size=spec.row_group or ROW_GROUP)


def read_table(
    paths: Path | Sequence[Path],
    spec: TableSpec,
    columns: Sequence[str] | None = None,
    *,
    sample_ids: Collection[int] | None = None,
    neurons: Collection[int] | None = None,
    only: Sequence[Condition] = (),
) -> pa.Table:
    """Read the files of one artifact, in the given order, into one table.

    columns: names from `spec`; all by default. sample_ids, neurons: read only their rows. only:
    further conditions on rows (see `conditions`). Reads only the row groups or record batches that
    may hold such rows. Raises OldTableError and DamagedTableError.
    """
    paths = list(paths) if isinstance(paths, Sequence) else [paths]
    names = list(columns) if columns is not None else spec.schema.names
    schema = pa.schema([spec.schema.field(name) for name in names])
    conditions = list(only)
    for column, values in (("neuron", neurons), ("sample_id", sample_ids)):
        if values is not None:
            if not values:
                return schema.empty_table()
            conditions += rows_with(column, values)
    tables = [read_rows(path, names, conditions).cast(schema) for path in paths]
    return pa.concat_tables([schema.empty_table(), *tables])


def read_rows(path: Path, columns: Sequence[str], conditions: Sequence[Condition] = ()) -> pa.Table:
    """Read columns of one local or remote file as they are stored; only rows that meet all
    conditions.

    Raises OldTableError if the file lacks one of the columns, and DamagedTableError.
    """
    with raise_if_damaged(path):
        if path.suffix == SUFFIX:
            return read_arrow(path, columns, conditions)
        return read_row_groups(path, columns, conditions)


def row_count(path: Path) -> int:
    """Return the number of rows of a file. Reads only its footer or index. Raises
    DamagedTableError."""
    with raise_if_damaged(path):
        if path.suffix == SUFFIX:
            return arrow_row_count(path)
        with open_for_arrow(path) as file:
            return pq.read_metadata(file).num_rows


def read_batches(path: Path, spec: TableSpec) -> Iterator[pa.Table]:
    """Yield one file as tables of one row group or record batch each, read lazily. Raises
    OldTableError."""
    names = spec.schema.names
    if path.suffix == SUFFIX:
        yield from (table.cast(spec.schema) for table in arrow_batches(path, names))
        return
    with open_for_arrow(path) as source, pq.ParquetFile(source) as file:
        check_columns(path, spec.schema.names, file.schema_arrow.names)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=names).cast(spec.schema)


def list_rows(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Return the rows of a list column as arrays that share one buffer."""
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False)
    return [values[start:stop] for start, stop in pairwise(offsets)]


def _lists_of_floats(schema: pa.Schema) -> list[str]:
    """Return the Parquet paths of the columns that are lists of floats."""
    return [
        f"{field.name}.list.element"
        for field in schema
        if hasattr(field.type, "value_type") and pa.types.is_float32(field.type.value_type)
    ]


def _conform(table: pa.Table, spec: TableSpec) -> pa.Table:
    if set(table.column_names) != set(spec.schema.names):
        different = sorted(set(table.column_names) ^ set(spec.schema.names))
        raise ValueError(f"table {spec.name}: columns missing or unknown: {', '.join(different)}")
    table = table.select(spec.schema.names).cast(spec.schema)
    if spec.statuses and table.num_rows:
        allowed = pa.array(spec.statuses)
        invalid = table.filter(pc.invert(pc.is_in(table["status"], value_set=allowed)))
        if invalid.num_rows:
            raise ValueError(
                f"table {spec.name}: unknown status {invalid['status'][0].as_py()!r}; "
                f"allowed: {', '.join(spec.statuses)}"
            )
    return table
