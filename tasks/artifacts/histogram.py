"""Bins of the activation histograms, and blocks of samples.

Bins are half octaves of the activation, the same for all neurons, so one pass over the data fills
them without knowing any neuron's range. A number's bin follows from its bits: the exponent and
the first bit of the fraction.

Blocks group the samples by sample_id alone. Samples are independent and tokens of one sample are
not, so tests that need independent units compare blocks.
"""

from __future__ import annotations

import numpy as np

BINS = 32
BLOCKS = 16

LOWEST_EXPONENT = -7
"""Bin 0 holds all values below 2^LOWEST_EXPONENT, including zero and negative ones. The last bin
holds all values from 2^((BINS - 2) / 2 + LOWEST_EXPONENT) = 256 up."""

DROPPED_BITS = 22
"""Low bits of a float32 to drop: its sign, exponent and first fraction bit remain."""

CODE_OF_BIN_0 = 2 * (127 + LOWEST_EXPONENT) - 1
"""Bin = the remaining bits minus this number, clipped to 0 ... BINS - 1."""


def bin_edges() -> np.ndarray:
    """Return the lower edges of the bins: float64 [BINS], activation units; the first is -inf."""
    half_octaves = np.arange(BINS - 1)
    edges = 2.0 ** (LOWEST_EXPONENT + half_octaves // 2) * np.where(half_octaves % 2, 1.5, 1.0)
    return np.concatenate([[-np.inf], edges])


def block_of(sample_ids: np.ndarray) -> np.ndarray:
    """Return the block of each sample: int64, the shape of `sample_ids`.

    Multiplicative hashing (Knuth) spreads consecutive ids evenly over the blocks and is blind to
    any period in the dataset's order.
    """
    return (np.asarray(sample_ids, dtype=np.int64) * 2_654_435_761 % 2**32) * BLOCKS >> 32
