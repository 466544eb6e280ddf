"""Hash the rows of tables, for the fingerprints of the stages that read them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import pyarrow as pa


def hash_rows(tables: Iterable[pa.Table]) -> str:
    """Return a hash of the rows of tables, one after the other. Columns are numbers and strings.

    Equal rows have the same hash, however they are stored.
    """
    digest = hashlib.sha256()
    for table in tables:
        for name in table.column_names:
            column = table[name].combine_chunks()
            digest.update(f"{name}:{len(column)}".encode())
            if pa.types.is_string(column.type):
                encoded = column.dictionary_encode()
                digest.update(json.dumps(encoded.dictionary.to_pylist()).encode())
                column = encoded.indices
            digest.update(column.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()
