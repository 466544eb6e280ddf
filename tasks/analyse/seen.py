"""What visual exemplars show: the subject's embeddings at their peaks, against random patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuron_atlas.tasks.artifacts.places import gather_embeddings, place_of

_VISUAL = 0
_RANDOM_PATCHES = 1000
"""Random patches that show what exemplars would have in common by chance."""
_KEPT = 0.99
"""Share of the variance of random patches in the directions that count; the others are noise."""
_SMALLEST = 1e-12


@dataclass(frozen=True)
class SeenPatches:
    """Embeddings of patches against random ones, of length 1.

    They are whitened: along each direction in which random patches differ, these have a mean of 0
    and a variance of 1. Otherwise what all objects have in common against a background would
    outweigh their differences.

    places: numbers of the patches (`place_of`), ascending. vectors: float32 [places, width].
    chance: float32 [random patches, width].
    """

    places: np.ndarray
    vectors: np.ndarray
    chance: np.ndarray

    def at(self, sample_id: np.ndarray, token: np.ndarray) -> np.ndarray:
        """Return the vectors of visual tokens, float32 [tokens, width]."""
        wanted = visual_places(sample_id, token)
        return self.vectors[np.searchsorted(self.places, wanted)]


def visual_places(sample_id: np.ndarray, token: np.ndarray) -> np.ndarray:
    """Return the places of visual tokens, int64."""
    return place_of(sample_id, np.full(len(sample_id), _VISUAL), token)


def random_places(sample_ids: np.ndarray, n_visual: np.ndarray, seed: int) -> np.ndarray:
    """Return the places of up to 1,000 random patches, ascending. All patches are as likely.

    n_visual: visual tokens of each of the samples.
    """
    bounds = np.cumsum(n_visual)
    total = int(bounds[-1]) if len(bounds) else 0
    drawn = np.random.default_rng(seed).choice(total, min(total, _RANDOM_PATCHES), replace=False)
    sample = np.searchsorted(bounds, drawn, side="right")
    token = drawn - (bounds[sample] - n_visual[sample])
    return np.sort(visual_places(sample_ids[sample], token))


def read_seen(paths: Sequence[Path], places: np.ndarray, chance: np.ndarray) -> SeenPatches:
    """Read the embeddings at the places of exemplars and at those of random patches, both
    ascending, from files of `peak_embeddings`."""
    every = np.union1d(places, chance)
    return seen_patches(every, gather_embeddings(paths, every), chance)


def seen_patches(places: np.ndarray, embeddings: np.ndarray, chance: np.ndarray) -> SeenPatches:
    """Return patches with their embeddings [places, width]; those at `chance` are random."""
    is_random = np.isin(places, chance)
    vectors = embeddings.copy()
    if is_random.any():
        random = embeddings[is_random].astype(np.float64)
        center = random.mean(axis=0)
        whitening = _whitening(random - center).astype(np.float32)
        vectors = (embeddings - center.astype(np.float32)) @ whitening
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(lengths, np.float32(_SMALLEST))
    return SeenPatches(places, vectors, vectors[is_random])


def _whitening(random: np.ndarray) -> np.ndarray:
    """Return the matrix [width, directions] that gives random patches, centered, a variance of 1
    in each of their main directions."""
    _, spread, directions = np.linalg.svd(random, full_matrices=False)
    total = np.square(spread).sum()
    if total <= _SMALLEST:
        return np.eye(random.shape[1])
    share = np.cumsum(np.square(spread)) / total
    count = min(int(np.searchsorted(share, _KEPT)) + 1, len(spread))
    return directions[:count].T * (np.sqrt(len(random)) / spread[:count])
