"""Read the rows of a Parquet file that meet conditions, from the row groups that may hold them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts.conditions import Condition, Range, may_hold, rows_that_meet
from neuron_atlas.tasks.artifacts.location import is_local, open_for_arrow
from neuron_atlas.tasks.artifacts.old_tables import check_columns

_CACHED_FILES = 4096


def read_row_groups(
    path: Path, columns: Sequence[str], conditions: Sequence[Condition] = ()
) -> pa.Table:
    """Read the rows that meet all conditions, in their order in the file.

    Decodes only the row groups that may hold such rows, and opens no local file without one. Raises
    OldTableError if the file lacks a column.
    """
    needed = list(dict.fromkeys([*columns, *(name for name, _, _ in conditions)]))
    footer = _cached_footer(path) if is_local(path) else None
    if footer is not None:
        check_columns(path, needed, footer.schema.names)
        if not _groups_that_may_hold(footer, conditions):
            return _empty(footer, columns)
    with (
        open_for_arrow(path) as source,
        pq.ParquetFile(
            source, metadata=footer and footer.metadata, pre_buffer=not is_local(path)
        ) as file,
    ):
        footer = footer or _Footer(file.metadata)
        check_columns(path, needed, footer.schema.names)
        groups = _groups_that_may_hold(footer, conditions)
        if not groups:
            return _empty(footer, columns)
        table = decode_row_groups(file, groups, needed)
    return rows_that_meet(conditions, table).select(list(columns))


def decode_row_groups(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pa.Table:
    """Decode some row groups of a file. All reads of rows decode them here."""
    return file.read_row_groups(groups, columns=columns)


class _Footer:
    """The metadata of a file, and the range of a column in each of its row groups."""

    def __init__(self, metadata: pq.FileMetaData) -> None:
        self.metadata = metadata
        self.schema = metadata.schema.to_arrow_schema()
        self._places = {
            metadata.schema.column(place).path: place for place in range(metadata.num_columns)
        }
        self._ranges: dict[str, list[Range | None]] = {}

    def ranges(self, column: str) -> list[Range | None]:
        """Return the lowest and highest value in each row group; None where unknown."""
        if column not in self._ranges:
            self._ranges[column] = [
                self._range(group, column) for group in range(self.metadata.num_row_groups)
            ]
        return self._ranges[column]

    def _range(self, group: int, column: str) -> Range | None:
        if column not in self._places:
            return None
        statistics = self.metadata.row_group(group).column(self._places[column]).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        return statistics.min, statistics.max


def _groups_that_may_hold(footer: _Footer, conditions: Sequence[Condition]) -> list[int]:
    columns = {name: footer.ranges(name) for name, _, _ in conditions}
    return [
        group
        for group in range(footer.metadata.num_row_groups)
        if may_hold(
            {
                name: found
                for name, ranges in columns.items()
                if (found := ranges[group]) is not None
            },
            conditions,
        )
    ]


def _empty(footer: _Footer, columns: Sequence[str]) -> pa.Table:
    return pa.schema([footer.schema.field(name) for name in columns]).empty_table()


def _cached_footer(path: Path) -> _Footer:
    """Return a local file's footer. A process reads each once, because the work items of a stage
    read the same files."""
    status = path.stat()
    return _read_footer(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=_CACHED_FILES)
def _read_footer(path: Path, modified_ns: int, size: int) -> _Footer:
    return _Footer(pq.read_metadata(path))
