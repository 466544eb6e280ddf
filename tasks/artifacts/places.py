"""Number the places in the images and texts of samples, and read the embeddings there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts.files import read_table
from neuron_atlas.tasks.artifacts.search import PEAK_EMBEDDINGS, PEAK_PLACES


def place_of(sample_id: np.ndarray, role: np.ndarray, token: np.ndarray) -> np.ndarray:
    """Return sample, role and token as one number that sorts by them, int64."""
    return (sample_id.astype(np.int64) << 32) | (role.astype(np.int64) << 30) | token


def sample_of(places: np.ndarray) -> np.ndarray:
    """Return the sample_id of each place."""
    return places >> 32


def role_of(places: np.ndarray) -> np.ndarray:
    """Return the role of each place, as an index into ROLES."""
    return places >> 30 & 3


def token_of(places: np.ndarray) -> np.ndarray:
    """Return the index of each place within the tokens of its role."""
    return places & (2**30 - 1)


def places_table(places: np.ndarray) -> pa.Table:
    """Return places as `peak_places` rows."""
    return pa.table({"place": places}).cast(PEAK_PLACES.schema)


def read_places(paths: Sequence[Path], sample_ids: np.ndarray) -> np.ndarray:
    """Return the distinct places of some layers on samples, ascending.

    paths: `peak_places` of each layer. sample_ids: of the samples; others between the lowest and
    the highest of them are skipped.
    """
    if not len(sample_ids):
        return np.empty(0, np.int64)
    low, high = int(sample_ids.min()) << 32, int(sample_ids.max() + 1) << 32
    only = [("place", ">=", low), ("place", "<", high)]
    found = np.unique(read_table(paths, PEAK_PLACES, only=only)["place"].to_numpy())
    return found[np.isin(sample_of(found), sample_ids)]


def embeddings_table(places: np.ndarray, embeddings: np.ndarray) -> pa.Table:
    """Return places and their embeddings [places, width] as `peak_embeddings` rows."""
    width = embeddings.shape[1]
    rows = pa.ListArray.from_arrays(
        pa.array(np.arange(len(places) + 1, dtype=np.int32) * width), pa.array(embeddings.ravel())
    )
    return pa.table({"place": places, "embedding": rows}).cast(PEAK_EMBEDDINGS.schema)


def read_embeddings(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of one file of `peak_embeddings`, and their embeddings [places, width]."""
    table = read_table(path, PEAK_EMBEDDINGS)
    values = table["embedding"].combine_chunks().flatten().to_numpy()
    shape = (len(table), -1) if len(table) else (0, 1)
    return table["place"].to_numpy(), values.reshape(shape)


def gather_embeddings(paths: Sequence[Path], places: np.ndarray) -> np.ndarray:
    """Return the embeddings at some places, ascending: float32 [places, width].

    paths: files of `peak_embeddings` that hold all of them; without a place, the width is 1.
    """
    gathered: np.ndarray | None = None
    for path in paths:
        stored, vectors = read_embeddings(path)
        rows = np.flatnonzero(np.isin(stored, places))
        if not len(rows):
            continue
        if gathered is None:
            gathered = np.zeros((len(places), vectors.shape[1]), np.float32)
        gathered[np.searchsorted(places, stored[rows])] = vectors[rows]
    return np.zeros((len(places), 1), np.float32) if gathered is None else gathered
