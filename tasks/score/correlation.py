"""Pearson's correlation over the concatenated tokens of several samples, from sums per sample.

Sums lie in arrays whose first axis says what was added up, so that the samples of a neuron are
pooled, or drawn again, by adding or by one matrix product over the last axis.
"""

from __future__ import annotations

import numpy as np


def real_sums(real: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sums float64 [3, samples] over each sample's tokens: n, x, xx.

    real: [tokens] of all samples one after the other; offsets: int64 [samples + 1].
    """
    x = real.astype(np.float64, copy=False)
    return np.stack([np.diff(offsets).astype(np.float64), *_add_up([x, x * x], offsets)])


def cross_sums(real: np.ndarray, predicted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sums float64 [3, samples] over each sample's tokens: y, yy, xy, where y is predicted."""
    x = real.astype(np.float64, copy=False)
    y = predicted.astype(np.float64, copy=False)
    return np.stack(_add_up([y, y * y, x * y], offsets))


def pearson(real: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Signed correlation [...] from pooled sums [3, ...] each; NaN where a side does not vary.

    r = (n Sxy - Sx Sy) / sqrt((n Sxx - Sx^2)(n Syy - Sy^2)), over the concatenation of all
    tokens as Bills et al. (2023) score, never a mean of per-sample correlations.
    """
    n, x, xx = real
    y, yy, xy = cross
    spread_x, spread_y = _spread(n, x, xx), _spread(n, y, yy)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (n * xy - x * y) / np.sqrt(spread_x * spread_y)
    return np.clip(r, -1, 1)


def varies(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Whether numbers vary, from their count, sum and sum of squares."""
    return np.isfinite(_spread(n, total, squares))


def _spread(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """n^2 times the variance; NaN where there is none."""
    spread = n * squares
    least = 1e-9 * spread
    spread = spread - total * total
    # Below rounding error a side is constant: dividing by it would give any number.
    return np.where(spread > least, spread, np.nan)


def _add_up(columns: list[np.ndarray], offsets: np.ndarray) -> list[np.ndarray]:
    # Each sample is added up by itself: differences of a running sum would let one sample's
    # large numbers swallow another's small ones.
    filled = np.diff(offsets) > 0
    starts = offsets[:-1][filled]
    sums = np.zeros((len(columns), len(filled)))
    if len(starts):
        for place, column in enumerate(columns):
            sums[place, filled] = np.add.reduceat(column, starts)
    return list(sums)
