"""Gather the rows of one layer from all shards into one sorted file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    CHOSEN,
    EVIDENCE,
    NEAR_MISSES,
    PURPOSES,
    read_table,
    write_table_parts,
)

_CHUNK_ROWS = 16_384
"""About how many rows are in memory at a time."""
_SORTED_BY = [(name, "ascending") for name in ("neuron", "stratum", "rank", "sample_id")]


def gather_layer(
    layer: int,
    chosen: Path,
    shards: Sequence[Path],
    written: Path,
    claims: Mapping[int, str] | None = None,
) -> None:
    """Write the rows of a layer, as the file `chosen` lists them, from the files of all shards.

    claims: of the explanation of each neuron, for a file of `near_misses`; None for one of
    `evidence`. Raises ValueError if a row is missing.
    """
    rows = read_table(chosen, CHOSEN, ["neuron", "purpose"])
    found = 0

    def parts() -> Iterator[pa.Table]:
        nonlocal found
        for purpose, first, last in _chunks(rows):
            only = [
                ("layer", "==", layer),
                ("purpose", "==", purpose),
                ("neuron", ">=", first),
                ("neuron", "<=", last),
            ]
            part = read_table(shards, EVIDENCE, only=only).sort_by(_SORTED_BY)
            found += len(part)
            if claims is not None:
                of_rows = [claims[neuron] for neuron in part["neuron"].to_pylist()]
                part = part.append_column("claim", pa.array(of_rows, pa.string()))
            yield part
        if found != len(rows):
            raise ValueError(f"layer {layer}: {found} of {len(rows)} rows of evidence are there")

    write_table_parts(parts(), EVIDENCE if claims is None else NEAR_MISSES, written)


def _chunks(rows: pa.Table) -> Iterator[tuple[str, int, int]]:
    """Yield purposes with the first and last neuron of about _CHUNK_ROWS rows, in the file's
    order."""
    purposes = np.asarray(rows["purpose"].to_pylist(), dtype=object)
    neurons = rows["neuron"].to_numpy()
    for purpose in sorted(PURPOSES):
        distinct, counts = np.unique(neurons[purposes == purpose], return_counts=True)
        chunk = (np.cumsum(counts) - counts) // _CHUNK_ROWS
        for number in np.unique(chunk):
            members = distinct[chunk == number]
            yield purpose, int(members[0]), int(members[-1])
