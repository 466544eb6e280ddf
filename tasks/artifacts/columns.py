"""Build table schemas: the table specification, and columns shared by several tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

ROLES = ("visual", "text", "template")
"""Roles of a token, in the order of role indices."""

NO_SAMPLE = -1
"""The sample_id of an empty exemplar slot (the dataset has fewer than N samples)."""


Format = Literal["parquet", "arrow"]
"""Format of a table's files. parquet: small, opened by any tool. arrow: Arrow IPC without
compression, for large tables of activations, which do not compress."""


@dataclass(frozen=True)
class TableSpec:
    """Specification of one table.

    key: the columns that identify a row. statuses: the values that `status` may take; empty if
    the table has no such column. row_group: rows per row group of Parquet files, which is the least
    that is read; None for the default. format: of its files, which have it as their suffix.
    compression: of Arrow files; Parquet files always have zstd. batch_rows: rows per record batch
    of Arrow files; None for few, so that readers of a few rows load little. dictionary: whether
    columns of Parquet files are dictionary-encoded, which is slow where numbers hardly repeat;
    else the bytes of floats are split, which compresses them.
    """

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    statuses: tuple[str, ...] = ()
    row_group: int | None = None
    format: Format = "parquet"
    compression: Literal["lz4"] | None = None
    batch_rows: int | None = None
    dictionary: bool = True


def column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    """Return a column whose metadata holds its meaning and, if given, its unit."""
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, metadata=metadata)


SAMPLE_ID = column("sample_id", pa.int32(), "position of the sample in the dataset's order")
NEURON = [
    column("layer", pa.int16(), "decoder layer, from 0"),
    column("neuron", pa.int32(), "index within the layer's FFN, from 0"),
]
OUTCOME = [
    column("status", pa.string(), "one of the table's statuses"),
    column("reason", pa.string(), "what went wrong; empty if ok"),
]
TRACE = [  # Large lists: one layer of a model with many tiles has over 2^31 activations.
    column(
        "visual",
        pa.large_list(pa.float16()),
        "activation at each visual token, in the order of the sample's regions (descriptions)",
        "activation",
    ),
    column("text", pa.large_list(pa.float16()), "activation at each text token", "activation"),
]
