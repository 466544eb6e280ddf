"""What tables are made of: the specification of a table, and columns that several have."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

ROLES = ("visual", "text", "template")
"""What a token is; the order is that of role indices."""

NO_SAMPLE = -1
"""The sample_id of an empty exemplar slot (a dataset with fewer samples than N)."""


@dataclass(frozen=True)
class TableSpec:
    """One artifact: its columns, the columns that identify a row, its closed set of statuses."""

    name: str
    schema: pa.Schema
    key: tuple[str, ...]
    statuses: tuple[str, ...] = ()


def column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    """A column that says in its metadata what it holds, and in which unit."""
    metadata = {"meaning": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, metadata=metadata)


SAMPLE_ID = column("sample_id", pa.int32(), "position of the sample in the dataset's own order")
NEURON = [
    column("layer", pa.int16(), "decoder layer, from 0"),
    column("neuron", pa.int32(), "index within the layer's FFN, from 0"),
]
OUTCOME = [
    column("status", pa.string(), "one of the table's closed set"),
    column("reason", pa.string(), "what went wrong, empty when ok"),
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
