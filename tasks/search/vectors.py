"""Average the embeddings at each neuron's peaks into a vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse

from neuron_atlas.tasks.artifacts import SEARCH_CENTERS, SEARCH_VECTORS
from neuron_atlas.tasks.artifacts.places import gather_embeddings, read_embeddings, role_of
from neuron_atlas.tasks.search.peaks import SEARCHED_ROLES, Peaks

_SMALLEST = 1e-12


def centers_of(embeddings: Sequence[Path]) -> pa.Table:
    """Return the `search_centers` rows: the mean embedding of the distinct peaks of each role.

    embeddings: files of `peak_embeddings`, without a common place.
    """
    totals: dict[int, np.ndarray] = {}
    counts = dict.fromkeys(range(len(SEARCHED_ROLES)), 0)
    for path in embeddings:
        places, vectors = read_embeddings(path)
        for index in counts:
            chosen = role_of(places) == index
            if chosen.any():
                totals[index] = totals.get(index, 0) + vectors[chosen].sum(0, dtype=np.float64)
                counts[index] += int(chosen.sum())
    rows = [
        {"role": role, "n": counts[index], "center": list(totals[index] / counts[index])}
        for index, role in enumerate(SEARCHED_ROLES)
        if counts[index]
    ]
    return pa.Table.from_pylist(rows, schema=SEARCH_CENTERS.schema)


def center_of(centers: pa.Table, role: str) -> np.ndarray | None:
    """Return the center of a role, float32 [width]; None if no exemplar peaks in it."""
    for row in centers.to_pylist():
        if row["role"] == role:
            return np.asarray(row["center"], np.float32)
    return None


def search_vectors(
    layer: int, peaks: Peaks, embeddings: Sequence[Path], centers: pa.Table
) -> pa.Table:
    """Return the `search_vectors` rows of one layer.

    embeddings: files of `peak_embeddings` with all places of the peaks.
    """
    tables = [SEARCH_VECTORS.schema.empty_table()]
    for index, role in enumerate(SEARCHED_ROLES):
        center, chosen = center_of(centers, role), peaks.role == index
        if center is None or not chosen.any():
            continue
        distinct, column = np.unique(peaks.places[chosen], return_inverse=True)
        units = unit_rows(gather_embeddings(embeddings, distinct) - center)
        neurons, row = np.unique(peaks.neuron[chosen], return_inverse=True)
        counts = np.bincount(row)
        shape = (len(neurons), len(distinct))
        sums = sparse.csr_array((np.ones(len(row), np.float32), (row, column)), shape=shape) @ units
        tables.append(_rows(layer, role, neurons, counts, sums / counts[:, None]))
    return pa.concat_tables(tables).sort_by([("neuron", "ascending"), ("role", "descending")])


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return each row divided by its length; rows of zeros stay, float32."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, _SMALLEST)).astype(np.float32)


def _rows(
    layer: int, role: str, neurons: np.ndarray, counts: np.ndarray, vectors: np.ndarray
) -> pa.Table:
    squared = np.square(vectors.astype(np.float64)).sum(1)
    # The squared length of a mean of unit vectors holds the cosines of all pairs.
    defined = (counts > 1) & (squared > 0)
    pairs = np.where(defined, (counts * squared - 1) / np.maximum(counts - 1, 1), np.nan)
    width = vectors.shape[1]
    return pa.table(
        {
            "layer": np.full(len(neurons), layer),
            "neuron": neurons,
            "role": pa.array([role] * len(neurons)),
            "n": counts,
            "vector": pa.ListArray.from_arrays(
                pa.array(np.arange(len(neurons) + 1, dtype=np.int32) * width),
                pa.array(vectors.astype(np.float16).ravel()),
            ),
            "clarity": pa.array(np.clip(pairs, -1, 1), from_pandas=True),
        }
    ).cast(SEARCH_VECTORS.schema)
