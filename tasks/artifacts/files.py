"""Tables as Parquet files that are either whole or absent."""

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
from neuron_atlas.tasks.artifacts.location import reading, writing

ROW_GROUP = 16_384
"""Rows that are read together: a few hundred neurons' traces, so that a few neurons' rows can be
read without the rest of their layer."""


def layer_file(artifact: str, layer: int) -> str:
    """The name of the file that holds one layer of an artifact."""
    return f"{artifact}-layer-{layer:03d}.parquet"


def write_table(table: pa.Table, spec: TableSpec, path: Path) -> None:
    """Write `table` as one Parquet file that is either whole or absent.

    Raises ValueError when the columns are not `spec`'s or a status is not of its closed set, and
    DiskFull.
    """
    write_tables([table], spec, path)


def write_tables(tables: Iterable[pa.Table], spec: TableSpec, path: Path) -> None:
    """Write tables one below the other as one Parquet file; see `write_table`. No more than one of
    them is held at a time."""
    with (
        writing(path) as unfinished,
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
    """Read the files of one artifact, in the order given, as one table of `spec`'s columns.

    sample_ids: read only the rows of these samples, and only the row groups that may hold them.
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


def read_parquet(path: Path, **how: Any) -> pa.Table:
    """Read one file as pyarrow.parquet.read_table does, wherever it lies."""
    with reading(path) as file:
        return pq.read_table(file, partitioning=None, **how)


def rows_with(column: str, wanted: Collection[int]) -> list[tuple[str, str, Any]]:
    """Return a filter for read_parquet. Its range lets the reader skip row groups, which it does not
    for a set."""
    if not wanted:
        return [(column, "in", [])]
    return [(column, ">=", min(wanted)), (column, "<=", max(wanted)), (column, "in", list(wanted))]


def row_count(path: Path) -> int:
    """The rows of a file, from its footer."""
    with reading(path) as file:
        return pq.read_metadata(file).num_rows


def read_batches(path: Path, spec: TableSpec) -> Iterator[pa.Table]:
    """One file as tables of at most a row group, one after the other, read as they are wanted."""
    with reading(path) as source, pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=spec.schema.names).cast(spec.schema)


def list_rows(column: pa.ChunkedArray) -> list[np.ndarray]:
    """The rows of a list column as arrays that share one buffer."""
    array = column.combine_chunks()
    offsets = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False)
    return [values[start:stop] for start, stop in pairwise(offsets)]


def _conform(table: pa.Table, spec: TableSpec) -> pa.Table:
    if set(table.column_names) != set(spec.schema.names):
        odd = sorted(set(table.column_names) ^ set(spec.schema.names))
        raise ValueError(f"table {spec.name}: columns missing or unknown: {', '.join(odd)}")
    table = table.select(spec.schema.names).cast(spec.schema)
    if spec.statuses and table.num_rows:
        allowed = pa.array(spec.statuses)
        strange = table.filter(pc.invert(pc.is_in(table["status"], value_set=allowed)))
        if strange.num_rows:
            raise ValueError(
                f"table {spec.name}: unknown status {strange['status'][0].as_py()!r}; "
                f"allowed: {', '.join(spec.statuses)}"
            )
    return table
