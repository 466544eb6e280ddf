"""Find the nearest neurons of every neuron, by one blocked matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from neuron_atlas.tasks.artifacts import NEIGHBORS, SEARCH_VECTORS, list_rows, read_table
from neuron_atlas.tasks.search.peaks import SEARCHED_ROLES
from neuron_atlas.tasks.search.vectors import unit_rows

_BLOCK = 2**26
"""Cosines of one block: 256 MB."""


def read_vectors(paths: Sequence[Path], role: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return layer int64 [rows], neuron int64 [rows] and unit vectors float32 [rows, width] of the
    neurons that have a vector of this role."""
    table = read_table(paths, SEARCH_VECTORS, ["layer", "neuron", "role", "vector"])
    table = table.filter(pa.compute.equal(table["role"], role))
    layer, neuron = (table[name].to_numpy().astype(np.int64) for name in ("layer", "neuron"))
    if not len(table):
        return layer, neuron, np.zeros((0, 0), np.float32)
    return layer, neuron, unit_rows(np.stack(list_rows(table["vector"])).astype(np.float32))


def nearest(
    queries: np.ndarray,
    vectors: np.ndarray,
    count: int,
    device: torch.device | str = "cpu",
    own: np.ndarray | None = None,
    block: int = _BLOCK,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of `vectors` with the highest cosines to each query, best first and by row on
    a tie, and the cosines: int64 and float32 [queries, count].

    queries, vectors: unit rows. own: the row of `vectors` that is each query itself, which is left
    out. block: cosines that are computed together.
    """
    count = min(count, len(vectors) - (own is not None))
    if count < 1 or not len(queries):
        return np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    others = torch.from_numpy(vectors).to(device)
    rows, cosines = [], []
    step = max(1, block // len(vectors))
    for start in range(0, len(queries), step):
        products = torch.from_numpy(queries[start : start + step]).to(device) @ others.T
        if own is not None:
            place = torch.from_numpy(own[start : start + step]).to(device)
            products[torch.arange(len(place), device=device), place] = -torch.inf
        found = products.topk(count, dim=1)
        rows.append(found.indices.cpu().numpy())
        cosines.append(found.values.cpu().numpy())
    found_rows, found_cosines = np.concatenate(rows), np.concatenate(cosines)
    order = np.lexsort((found_rows, -found_cosines), axis=1)
    return (
        np.take_along_axis(found_rows, order, axis=1),
        np.take_along_axis(found_cosines, order, axis=1),
    )


def neighbors_of_layer(
    layer: int, paths: Sequence[Path], count: int, device: torch.device | str = "cpu"
) -> pa.Table:
    """Return the `neighbors` rows of one layer. paths: `search_vectors` of all layers."""
    tables = [NEIGHBORS.schema.empty_table()]
    for role in SEARCHED_ROLES:
        layers, neurons, vectors = read_vectors(paths, role)
        own = np.flatnonzero(layers == layer)
        if len(own):
            rows, cosines = nearest(vectors[own], vectors, count, device, own)
            tables.append(_rows(layer, role, neurons[own], layers[rows], neurons[rows], cosines))
    return pa.concat_tables(tables).sort_by([("neuron", "ascending"), ("role", "descending")])


def _rows(
    layer: int,
    role: str,
    neurons: np.ndarray,
    near_layers: np.ndarray,
    near_neurons: np.ndarray,
    cosines: np.ndarray,
) -> pa.Table:
    first = cosines[:, 0] if cosines.shape[1] else np.full(len(neurons), np.nan)
    return pa.table(
        {
            "layer": np.full(len(neurons), layer),
            "neuron": neurons,
            "role": pa.array([role] * len(neurons)),
            "layers": list(near_layers),
            "neurons": list(near_neurons),
            "cosines": list(cosines),
            "redundancy": pa.array(first, from_pandas=True),
        }
    ).cast(NEIGHBORS.schema)
