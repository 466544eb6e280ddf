"""The bins in which every neuron's activations are counted, and the blocks of samples.

Bins are half octaves of the activation itself, the same for all neurons, so that one pass over
the data fills them without knowing any neuron's range. A bin is read off the number's bits: its
exponent and the first bit of its fraction.

Blocks cut the samples into groups by sample_id alone. Tokens of one sample depend on each other
and samples do not, so a test that must respect this compares blocks.
"""

from __future__ import annotations

import numpy as np

BINS = 32
BLOCKS = 16

LOWEST_EXPONENT = -7
"""Bin 0 holds everything below 2^LOWEST_EXPONENT, so also all that is zero or negative; the last
bin everything from 2^((BINS - 2) / 2 + LOWEST_EXPONENT) = 256 on."""

DROPPED_BITS = 22
"""What is left of a float32's bits without these is its sign, exponent and first fraction bit."""

CODE_OF_BIN_0 = 2 * (127 + LOWEST_EXPONENT) - 1
"""The bin is that number less this one, held between 0 and BINS - 1."""


def bin_edges() -> np.ndarray:
    """Lower edges float64 [BINS] of the bins, in activation units; the first is -inf."""
    half_octaves = np.arange(BINS - 1)
    edges = 2.0 ** (LOWEST_EXPONENT + half_octaves // 2) * np.where(half_octaves % 2, 1.5, 1.0)
    return np.concatenate([[-np.inf], edges])


def block_of(sample_ids: np.ndarray) -> np.ndarray:
    """The block int64 of each sample: multiplicative hashing (Knuth), which spreads consecutive
    ids evenly over the blocks and ignores any period in the dataset's order."""
    return (np.asarray(sample_ids, dtype=np.int64) * 2_654_435_761 % 2**32) * BLOCKS >> 32
