"""Choose each neuron's threshold: the lowest histogram bin that counts as high."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.artifacts.histogram import BINS, bin_edges


def otsu_bin(counts: np.ndarray) -> np.ndarray:
    """Return the first high bin, int64 [neurons], 1 to BINS - 1, by Otsu's method.

    counts: tokens per bin, int [neurons, BINS]. The cut maximizes the variance between the two
    classes, w0 w1 (m1 - m0)^2, with w the number of tokens and m the mean activation of a class
    (Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9, 1979). A
    bin counts as the middle of its edges. Bin 0, with values near 0 and negative ones, counts as 0:
    activations are rectified, as in the paper. Of equal cuts, which split the tokens identically,
    the lowest is returned.
    """
    totals = np.cumsum(counts, axis=1, dtype=np.float64)
    sums = np.cumsum(counts * _bin_activations(), axis=1)
    below, below_sum = totals[:, :-1], sums[:, :-1]
    above, above_sum = totals[:, -1:] - below, sums[:, -1:] - below_sum
    between = below * above_sum - above * below_sum
    parts = below * above
    variance = np.divide(between**2, parts, out=np.zeros_like(between), where=parts > 0)
    return variance.argmax(axis=1) + 1


def quantile_bin(counts: np.ndarray, quantile: float) -> np.ndarray:
    """Return the first high bin, int64 [neurons]: at least `quantile` of the tokens are below it.

    counts: tokens per bin, int [neurons, BINS]. Bin 0 is never high. If no bin qualifies, the last
    bin is returned.
    """
    below = np.cumsum(counts, axis=1, dtype=np.float64)[:, :-1]
    enough = below >= quantile * counts.sum(axis=1, dtype=np.float64)[:, None]
    return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, BINS - 1)


def _bin_activations() -> np.ndarray:
    """Return the activation of each bin, float64 [BINS]; the last bin counts as its lower edge."""
    edges = bin_edges()
    middles = np.append((edges[1:-1] + edges[2:]) / 2, edges[-1])
    return np.concatenate([[0.0], middles])
