"""List the peaks whose embeddings are needed, and split them into shards of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    NO_SAMPLE,
    PEAK_EMBEDDINGS,
    PEAK_PLACES,
    ROLES,
    read_rows,
    read_table,
    slot_values,
)

SEARCHED_ROLES = ROLES[:2]
_COLUMNS = ("neuron", "sample_id", "peak", "peak_role", "peak_token")


@dataclass(frozen=True)
class Peaks:
    """Peaks of a layer's neurons at their strongest exemplars. All are [peaks].

    neuron: index in the layer. sample_id, role, token: where the peak is. role: index into ROLES.
    """

    neuron: np.ndarray
    sample_id: np.ndarray
    role: np.ndarray
    token: np.ndarray

    @property
    def places(self) -> np.ndarray:
        """Sample, role and token of each peak as one number, int64 [peaks]."""
        return place_of(self.sample_id, self.role, self.token)


def read_peaks(exemplars: Path, n_exemplars: int) -> Peaks:
    """Return the peaks of one layer, from its file of `exemplars`.

    Exemplars without a positive activation are left out: there is no place where they fire.
    """
    table = read_rows(exemplars, _COLUMNS)
    sample_id, peak, role, token = (
        slot_values(table, name)[:, :n_exemplars] for name in _COLUMNS[1:]
    )
    found = (sample_id != NO_SAMPLE) & (np.nan_to_num(peak, nan=0.0) > 0) & (token >= 0)
    neuron = np.broadcast_to(table["neuron"].to_numpy()[:, None], found.shape)
    return Peaks(*(part[found].astype(np.int64) for part in (neuron, sample_id, role, token)))


def place_of(sample_id: np.ndarray, role: np.ndarray, token: np.ndarray) -> np.ndarray:
    """Return sample, role and token as one number that sorts by them, int64."""
    return (sample_id.astype(np.int64) << 32) | (role.astype(np.int64) << 30) | token


def all_places(exemplars: Sequence[Path], n_exemplars: int) -> np.ndarray:
    """Return the distinct places of the peaks of some layers, ascending, int64."""
    found = [np.unique(read_peaks(path, n_exemplars).places) for path in exemplars]
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def places_table(places: np.ndarray) -> pa.Table:
    """Return places as `peak_places` rows."""
    return pa.table({"place": places}).cast(PEAK_PLACES.schema)


def embeddings_table(places: np.ndarray, embeddings: np.ndarray) -> pa.Table:
    """Return places and their embeddings [places, width] as `peak_embeddings` rows."""
    width = embeddings.shape[1]
    rows = pa.ListArray.from_arrays(
        pa.array(np.arange(len(places) + 1, dtype=np.int32) * width), pa.array(embeddings.ravel())
    )
    return pa.table({"place": places, "embedding": rows}).cast(PEAK_EMBEDDINGS.schema)


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


def sample_of(places: np.ndarray) -> np.ndarray:
    """Return the sample_id of each place."""
    return places >> 32


def role_of(places: np.ndarray) -> np.ndarray:
    """Return the role of each place, as an index into ROLES."""
    return places >> 30 & 3


def token_of(places: np.ndarray) -> np.ndarray:
    """Return the index of each place within the tokens of its role."""
    return places & (2**30 - 1)
