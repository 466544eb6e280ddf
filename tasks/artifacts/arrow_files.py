"""Read and write tables as Arrow IPC files, which cost little more than copying their bytes.

A file consists of small record batches. Its last batch has no rows; the metadata of that batch is
an index: the range of each key column in each batch. A reader of a few rows loads only the batches
that may hold them. Other programs read the file as any Arrow file (Feather V2).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts.conditions import Condition, Range, may_hold, rows_that_meet
from neuron_atlas.tasks.artifacts.location import is_local, open_for_arrow

SUFFIX = ".arrow"
BATCH_ROWS = 256
"""Rows per record batch. At 730 tokens, the traces of a batch have 0.4 MB."""

_INDEX = b"neuron_atlas.index"


@dataclass(frozen=True)
class _Index:
    """rows, ranges: number of rows, and range of each key column, of each record batch."""

    rows: tuple[int, ...]
    ranges: tuple[Mapping[str, Range], ...]


def write_arrow(
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    key: Sequence[str],
    path: Path,
    compression: str | None = None,
    batch_rows: int | None = None,
) -> None:
    """Write tables of this schema into one file. key: the columns of the index. batch_rows: rows
    per record batch; None for BATCH_ROWS."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    rows: list[int] = []
    ranges: list[Mapping[str, Range]] = []
    with pa.ipc.new_file(str(path), schema, options=options) as writer:
        for table in tables:
            for batch in table.combine_chunks().to_batches(max_chunksize=batch_rows or BATCH_ROWS):
                if batch.num_rows:
                    writer.write_batch(batch)
                    rows.append(batch.num_rows)
                    ranges.append({name: _range_of(batch[name]) for name in key})
        index = json.dumps({"rows": rows, "ranges": ranges}).encode()
        no_rows = schema.empty_table().combine_chunks().to_batches() or [_no_rows(schema)]
        writer.write_batch(no_rows[0], custom_metadata={_INDEX: index})


def read_arrow(
    path: Path, columns: Sequence[str], conditions: Sequence[Condition] = ()
) -> pa.Table:
    """Read the rows that meet all conditions, in the order of the file."""
    needed = {*columns, *(name for name, _, _ in conditions)}
    with _opened(path, needed) as (reader, index):
        schema = pa.schema([reader.schema.field(name) for name in columns])
        batches = [
            rows_that_meet(conditions, load_batch(reader, number)).select(list(columns))
            for number, ranges in enumerate(index.ranges)
            if may_hold(ranges, conditions)
        ]
    return pa.Table.from_batches(batches, schema=schema)


def arrow_batches(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield a file as one table per record batch."""
    with _opened(path, columns) as (reader, index):
        for number in range(len(index.rows)):
            yield pa.Table.from_batches([load_batch(reader, number).select(list(columns))])


def arrow_row_count(path: Path) -> int:
    """Return the number of rows of a file. Reads only its index."""
    with _opened(path, None) as (_, index):
        return sum(index.rows)


def load_batch(reader: Any, number: int) -> pa.RecordBatch:
    """Load one record batch of an open file."""
    return reader.get_batch(number)


@contextmanager
def _opened(path: Path, columns: Collection[str] | None) -> Iterator[tuple[Any, _Index]]:
    """Open a file. columns: those to load; None for all."""
    with open_for_arrow(path) as source, _input(path, source) as file:
        reader = pa.ipc.open_file(file)
        index = _read_index(reader)
        if columns is not None:
            places = sorted(reader.schema.get_field_index(name) for name in columns)
            options = pa.ipc.IpcReadOptions(included_fields=places)
            reader = pa.ipc.open_file(file, options=options)
        yield reader, index


def _input(path: Path, source: Any) -> Any:
    # Mapped pages that no row needs are never read from disk.
    return pa.memory_map(str(path)) if is_local(path) else pa.PythonFile(source, mode="r")


def _read_index(reader: Any) -> _Index:
    """Read the index; without one (a file of another program), any batch may hold any row."""
    count = reader.num_record_batches
    if count:
        _, metadata = reader.get_batch_with_custom_metadata(count - 1)
        if metadata and _INDEX in metadata:
            found = json.loads(metadata[_INDEX])
            return _Index(tuple(found["rows"]), tuple(found["ranges"]))
    return _Index(
        tuple(reader.get_batch(number).num_rows for number in range(count)), ({},) * count
    )


def _range_of(values: pa.Array) -> Range:
    found = pc.min_max(values)
    return found["min"].as_py(), found["max"].as_py()


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
