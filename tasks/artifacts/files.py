"""Read and write tables as Parquet files. A file is either complete or absent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts.columns import TableSpec
from neuron_atlas.tasks.artifacts.location import atomic_file, open_for_arrow

ROW_GROUP = 16_384
"""Rows per row group: the traces of a few hundred neurons, so that reading a few neurons does not
read their whole layer."""


class OldTableError(ValueError):
    """A table lacks columns, because another version of neuron-atlas wrote it."""


def layer_file(artifact: str, layer: int) -> str:
    """Return the name of the file that holds one layer of an artifact."""
    return f"{artifact}-layer-{layer:03d}.parquet"


def write_table(table: pa.Table, spec: TableSpec, path: Path) -> None:
    """Write `table` as one Parquet file that is either complete or absent.

    Raises ValueError if the columns or a status do not match `spec`, and DiskFullError.
    """
    write_table_parts([table], spec, path)


def write_table_parts(tables: Iterable[pa.Table], spec: TableSpec, path: Path) -> None:
    """Concatenate tables into one Parquet file; see `write_table`. Holds one table at a time."""
    with (
        atomic_file(path) as unfinished,
        pq.ParquetWriter(unfinished, spec.schema, compression="zstd") as writer,
    ):
        for table in tables:
            writer.write_table(_conform(table, spec), row_group_size=ROW_GROUP)


def read_table(
    paths: Path | Sequence[Path],
    spec: TableSpec,
    columns: Sequence[str] | None = None,
    *,
    sample_ids: Collection[int] | None = None,
) -> pa.Table:
    """Read the files of one artifact, in the given order, into one table.

    columns: names from `spec`; all by default. sample_ids: read only the rows of these samples,
    and only the row groups that may hold them. Raises OldTableError.
    """
    paths = list(paths) if isinstance(paths, Sequence) else [paths]
    names = list(columns) if columns is not None else spec.schema.names
    schema = pa.schema([spec.schema.field(name) for name in names])
    if not paths:
        return schema.empty_table()
    filters = None if sample_ids is None else rows_with("sample_id", sample_ids)
    return pa.concat_tables(
        read_parquet(path, columns=names, filters=filters).cast(schema) for path in paths
    )


def read_parquet(path: Path, **options: Any) -> pa.Table:
    """Read one local or remote file. options: those of pyarrow.parquet.read_table.

    Raises OldTableError if the file lacks one of options["columns"].
    """
    with open_for_arrow(path) as file:
        try:
            return pq.read_table(file, partitioning=None, **options)
        except pa.ArrowInvalid:
            _check_columns(path, options.get("columns") or (), pq.read_schema(file).names)
            raise


def _check_columns(path: Path, expected: Iterable[str], found: Collection[str]) -> None:
    if missing := [name for name in expected if name not in found]:
        raise OldTableError(f"{path}: {old_table_message(missing)}")


def old_table_message(missing: Collection[str]) -> str:
    """Return what is wrong with a table that lacks columns, and what to do."""
    return (
        f"no column {', '.join(missing)}: another version of neuron-atlas wrote this table. "
        "Run the same command again to write it with this version"
    )


def rows_with(column: str, values: Collection[int]) -> list[tuple[str, str, Any]]:
    """Return `filters` for `read_parquet` that select the rows whose `column` is in `values`.

    The filters include the range of `values`: the reader skips row groups by range, not by set.
    """
    if not values:
        return [(column, "in", [])]
    return [(column, ">=", min(values)), (column, "<=", max(values)), (column, "in", list(values))]


def row_count(path: Path) -> int:
    """Return the number of rows of a file. Reads only its footer."""
    with open_for_arrow(path) as file:
        return pq.read_metadata(file).num_rows


def read_batches(path: Path, spec: TableSpec) -> Iterator[pa.Table]:
    """Yield one file as tables of one row group each, read lazily. Raises OldTableError."""
    with open_for_arrow(path) as source, pq.ParquetFile(source) as file:
        _check_columns(path, spec.schema.names, file.schema_arrow.names)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=spec.schema.names).cast(spec.schema)


def list_rows(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Return the rows of a list column as arrays that share one buffer."""
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False)
    return [values[start:stop] for start, stop in pairwise(offsets)]


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
