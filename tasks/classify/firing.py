"""Test whether a neuron fires, or whether its activations are those of noise.

The null hypothesis is noise: a normally distributed pre-activation, of any mean and variance, and
an activation function that is close to the identity for positive inputs (ReLU, SiLU, GELU). Let
z(x) be the normal quantile of the share of tokens below x. For noise, z is nearly a straight line
over x > 0. Its slope from x to 2x is 0.7 to 1 times its slope from 0 to x. A neuron that fires
departs from the line in one of two ways:

- A long tail: z rises much less from x to 2x than from 0 to x. More tokens are above 2x than noise
  of the neuron's spread leaves there.
- A gap: z rises much more from x to 2x than from 0 to x. Many tokens are above x and few between 0
  and x, so the high tokens are a cluster of their own.

"Much" is a factor, a setting. Each departure is tested by blocks of samples (sign_flips.py), so
tokens of one sample may depend on each other.
"""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.artifacts.histogram import BINS, bin_edges
from neuron_atlas.tasks.statistics.sign_flips import upper_p

MIN_TOKENS = 32
"""Tokens that must be below, and above, a point of the line. The slopes are too noisy otherwise."""
_OCTAVE = 2
"""Bins between x and 2x."""
_STEPS = (-2 * _OCTAVE, -_OCTAVE, 0, _OCTAVE)
"""Where x is tried: a fourth, half, once and twice the median of the high tokens. Bin steps."""
_CHUNK_NEURONS = 1024


def firing_p(counts: np.ndarray, first_high: np.ndarray, factor: float) -> np.ndarray:
    """Return the p-value of noise: float64 [neurons], 1 where nothing can be shown.

    counts: tokens, int [neurons, blocks, BINS]. first_high: first bin of a high token, int
    [neurons]. factor: the slopes of noise may differ by this factor, at least 1. Of both departures
    at all x, the clearest is tested. p is its p-value times their number (Bonferroni).
    """
    p = np.ones(len(counts))
    for start in range(0, len(counts), _CHUNK_NEURONS):
        rows = slice(start, start + _CHUNK_NEURONS)
        above = np.cumsum(counts[rows, :, ::-1], axis=2, dtype=np.int64)[:, :, ::-1]
        clearest = _clearest_departure(above, first_high[rows], factor)
        shown = clearest.any(axis=1)
        p[rows][shown] = np.minimum(2 * len(_STEPS) * upper_p(clearest[shown]), 1)
    return p


def _clearest_departure(above: np.ndarray, first_high: np.ndarray, factor: float) -> np.ndarray:
    """Return what each block adds to the departure with the highest t: [neurons, blocks], 0 for a
    neuron without one. above: tokens in each bin and all higher ones, [neurons, blocks, BINS]."""
    pooled = above.sum(axis=1)
    lowest, median = _lowest_bin(pooled), _median_bin(pooled, first_high)
    clearest, highest = np.zeros(above.shape[:2]), np.zeros(len(above))
    for step in _STEPS:
        rows, departures = _departures(above, lowest, median + step, factor)
        for departure in departures:
            spread = np.sqrt(np.einsum("nb,nb->n", departure, departure))
            t = departure.sum(axis=1) / np.where(spread > 0, spread, 1)
            is_clearer = t > highest[rows]
            clearest[rows[is_clearer]] = departure[is_clearer]
            highest[rows[is_clearer]] = t[is_clearer]
    return clearest


def _lowest_bin(above: np.ndarray) -> np.ndarray:
    """Return the lowest bin, at least 1, with MIN_TOKENS tokens below it: int64 [neurons]; BINS if
    there is none. above: tokens in each bin and all higher ones, [neurons, BINS]."""
    enough = above[:, :1] - above >= MIN_TOKENS
    enough[:, 0] = False
    return np.where(enough.any(axis=1), enough.argmax(axis=1), BINS)


def _median_bin(above: np.ndarray, first_high: np.ndarray) -> np.ndarray:
    """Return the bin of the median high token, int64 [neurons]. above: as in `_lowest_bin`."""
    high = np.take_along_axis(above, first_high[:, None], axis=1)
    return np.maximum((2 * above >= high).sum(axis=1) - 1, first_high)


def _departures(
    above: np.ndarray, lowest: np.ndarray, middle: np.ndarray, factor: float
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return neurons, and what each of their blocks adds to each departure, [neurons, blocks].

    A neuron is left out if x is too low, too high, or has too few tokens above it. above: as in
    `_clearest_departure`. lowest: bin of the line's start. middle: bin of x.
    """
    inside = (middle - lowest >= _OCTAVE) & (middle + _OCTAVE < BINS)
    rows = np.flatnonzero(inside)
    bins = np.stack([lowest, middle, middle + _OCTAVE], axis=1)[rows]
    by_block = np.take_along_axis(above[rows], bins[:, None, :], axis=2)
    high = by_block.sum(axis=1)
    enough = high[:, 1] >= MIN_TOKENS
    rows, bins, by_block, high = rows[enough], bins[enough], by_block[enough], high[enough]
    contributions = _slope_contributions(by_block, above[rows, :, 0], bin_edges()[bins])
    first, second = contributions[:, :, 0], contributions[:, :, 1]
    gap, tail = second - factor * first, first / factor - second
    tail[high[:, 2] < MIN_TOKENS] = 0
    return rows, (gap, tail)


def _slope_contributions(high: np.ndarray, tokens: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return what each block adds to the two slopes of z, float64 [neurons, blocks, 2].

    high: tokens above three points, [neurons, blocks, 3]. tokens: of each block, [neurons, blocks].
    x: the points, [neurons, 3]. The contributions are linearized in the shares (the delta method);
    their sum over the blocks is the slope.
    """
    from scipy.special import ndtri  # A tenth of a second to import.

    total = tokens.sum(axis=1)[:, None]
    share = high.sum(axis=1) / total
    # Half a token more than none, or less than all, has a finite quantile.
    z = -ndtri(np.clip(share, 0.5 / total, 1 - 0.5 / total))
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    weight = tokens / total
    # The share of a block differs from the share of all tokens by `excess / weight`.
    excess = high / total[:, :, None] - share[:, None, :] * weight[:, :, None]
    of_block = z[:, None, :] * weight[:, :, None] - excess / density[:, None, :]
    return np.diff(of_block, axis=2) / np.diff(x, axis=1)[:, None, :]
