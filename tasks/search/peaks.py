"""List the peaks whose embeddings are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuron_atlas.tasks.artifacts import NO_SAMPLE, ROLES, read_rows, slot_values
from neuron_atlas.tasks.artifacts.places import place_of

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


def all_places(exemplars: Sequence[Path], n_exemplars: int) -> np.ndarray:
    """Return the distinct places of the peaks of some layers, ascending, int64."""
    found = [np.unique(read_peaks(path, n_exemplars).places) for path in exemplars]
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))
