"""Made-up embeddings of the patches at which visual exemplars peak."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.analyse.responses import seen_places
from neuron_atlas.tasks.analyse.seen import SeenPatches, seen_patches
from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.artifacts.places import place_of, sample_of

WIDTH = 128
_FIRST_RANDOM = 100_000
"""Sample_id from which the random patches are, which no exemplar shows."""
_N_RANDOM = 400


def patches_of(
    exemplars: pa.Table,
    moments: pa.Table,
    settings: AnalyseSettings,
    shows: Callable[[int], int] = lambda sample_id: sample_id,
    noise: float = 0.3,
) -> SeenPatches:
    """Patches like others that show the same, and unlike random ones. shows: what a sample shows,
    as a number; by default every sample shows something of its own."""
    places = seen_places(exemplars, moments, settings)
    zeros = np.zeros(_N_RANDOM, np.int64)
    random = place_of(np.arange(_FIRST_RANDOM, _FIRST_RANDOM + _N_RANDOM), zeros, zeros)
    vectors = [
        _direction(shows(sample_id)) + noise * _direction(10_000 + sample_id)
        for sample_id in sample_of(places).tolist()
    ]
    vectors += [_direction(one) for one in sample_of(random).tolist()]
    every = np.concatenate([places, random])
    return seen_patches(every, np.array(vectors, np.float32), random)


def _direction(number: int) -> np.ndarray:
    vector = np.random.default_rng(number).standard_normal(WIDTH)
    return vector / np.linalg.norm(vector)
