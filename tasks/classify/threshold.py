"""Where a neuron's activity begins: the lowest bin that counts as high."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.artifacts.histogram import BINS, bin_edges


def otsu_bin(counts: np.ndarray) -> np.ndarray:
    """The first high bin int64 [neurons], 1 to BINS - 1, from token counts int [neurons, BINS].

    Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9 (1979): the
    cut that maximises the variance between the two classes, w0 w1 (m1 - m0)^2, w the classes'
    tokens and m their mean activations. A bin's activation is the middle of its edges; bin 0, with
    all that is near 0 or negative, counts as 0 (activations are rectified, as the paper does).
    Among equal cuts the lowest is taken: they part the tokens alike.
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
    """The first high bin int64 [neurons]: below it lie at least `quantile` of the tokens.

    Bin 0 is never high, whatever share of the tokens lies in it.
    """
    below = np.cumsum(counts, axis=1, dtype=np.float64)[:, :-1]
    enough = below >= quantile * counts.sum(axis=1, dtype=np.float64)[:, None]
    return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, BINS - 1)


def _bin_activations() -> np.ndarray:
    """What an activation in each bin counts as, float64 [BINS]; the last bin by its lower edge."""
    edges = bin_edges()
    middles = np.append((edges[1:-1] + edges[2:]) / 2, edges[-1])
    return np.concatenate([[0.0], middles])
