"""Histograms of made-up neurons, by counting every token."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import HISTOGRAMS
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges, block_of

QUIET, LOUD = -0.1, 4.0


def histograms(visual: np.ndarray, text: np.ndarray, layer: int = 0) -> pa.Table:
    """The table of counts int [neurons, BLOCKS, BINS] of each role."""
    columns = {
        "layer": pa.array([layer] * len(visual), pa.int16()),
        "neuron": pa.array(range(len(visual)), pa.int32()),
    }
    for role, counts in (("visual", visual), ("text", text)):
        assert counts.shape[1:] == (BLOCKS, BINS)
        columns[role] = pa.FixedSizeListArray.from_arrays(
            pa.array(counts.ravel(), pa.int32()), BLOCKS * BINS
        )
    return pa.table(columns).cast(HISTOGRAMS.schema)


def two_levels(
    high_visual: np.ndarray, n_visual: np.ndarray, high_text: np.ndarray, n_text: np.ndarray
) -> pa.Table:
    """Neurons that are LOUD at their high tokens and QUIET at the others, all [neurons, BLOCKS]."""
    quiet, loud = np.searchsorted(bin_edges()[1:], [QUIET, LOUD], side="right")
    roles = []
    for high, total in ((high_visual, n_visual), (high_text, n_text)):
        counts = np.zeros((*np.shape(high), BINS), dtype=np.int64)
        counts[..., loud] = high
        counts[..., quiet] = np.asarray(total) - high
        roles.append(counts)
    return histograms(*roles)


def even(neurons: Sequence[tuple[int, int, int, int]]) -> pa.Table:
    """Neurons (high visual, all visual, high text, all text tokens), the same in every block."""
    each = np.repeat(np.array(neurons)[:, :, None], BLOCKS, axis=2)
    return two_levels(each[:, 0], each[:, 1], each[:, 2], each[:, 3])


def counted(activations: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Counts int [neurons, BLOCKS, BINS] of activations [neurons, tokens]. samples: the sample_id
    of each token."""
    neurons = len(activations)
    bins = np.searchsorted(bin_edges()[1:], activations, side="right")
    code = (np.arange(neurons)[:, None] * BLOCKS + block_of(samples)) * BINS + bins
    counts = np.bincount(code.ravel(), minlength=neurons * BLOCKS * BINS)
    return counts.reshape(neurons, BLOCKS, BINS)
