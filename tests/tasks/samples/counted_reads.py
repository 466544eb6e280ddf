"""Count the rows that are decoded of each table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from neuron_atlas.tasks.artifacts import row_groups


@contextmanager
def counted_reads() -> Iterator[Counter[str]]:
    """Count, within the block, the rows that this process decodes, by table."""
    rows: Counter[str] = Counter()
    decode = row_groups.decode_row_groups

    def counted_decode(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pa.Table:
        table = decode(file, groups, columns)
        rows[_table_of(file)] += len(table)
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_groups, "decode_row_groups", counted_decode)
        yield rows


def _table_of(file: pq.ParquetFile) -> str:
    """Return the table that a file belongs to, told by its columns."""
    names = file.schema_arrow.names
    if "mask" in names:
        return "concepts"
    return "descriptions" if "regions" in names else "samples" if "images" in names else "other"
