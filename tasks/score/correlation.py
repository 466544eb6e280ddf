"""Compute Pearson's correlation over the tokens of several samples, from sums per sample.

The first axis of an array of sums is the kind of sum, the last one the sample. So samples are
pooled by adding over the last axis, and resampled by one matrix product.
"""

from __future__ import annotations

import numpy as np


def real_sums(real: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return sums float64 [3, samples] over each sample's tokens: n, x, xx.

    real: [tokens] of all samples, concatenated. offsets: int64 [samples + 1], where samples start.
    """
    x = real.astype(np.float64, copy=False)
    return np.stack([np.diff(offsets).astype(np.float64), *_add_up([x, x * x], offsets)])


def cross_sums(real: np.ndarray, predicted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return sums float64 [3, samples] over each sample's tokens: y, yy, xy (y: predicted)."""
    x = real.astype(np.float64, copy=False)
    y = predicted.astype(np.float64, copy=False)
    return np.stack(_add_up([y, y * y, x * y], offsets))


def pearson(real: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Return the signed correlation [...] from pooled sums [3, ...]; NaN if a side is constant.

    r = (n Sxy - Sx Sy) / sqrt((n Sxx - Sx^2)(n Syy - Sy^2)), over all tokens concatenated, as in
    Bills et al. (2023); not a mean of per-sample correlations.
    """
    n, x, xx = real
    y, yy, xy = cross
    spread_x, spread_y = _spread(n, x, xx), _spread(n, y, yy)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (n * xy - x * y) / np.sqrt(spread_x * spread_y)
    return np.clip(r, -1, 1)


def has_variance(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return whether numbers vary, from their count, sum and sum of squares."""
    return np.isfinite(_spread(n, total, squares))


def _spread(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return n^2 times the variance; NaN if the numbers are constant."""
    n_squares = n * squares
    spread = n_squares - total * total
    # Below rounding error a side is constant; dividing by it would give an arbitrary number.
    return np.where(spread > 1e-9 * n_squares, spread, np.nan)


def _add_up(columns: list[np.ndarray], offsets: np.ndarray) -> list[np.ndarray]:
    # One sum for each sample: in differences of a running sum, one sample's large numbers would
    # absorb another's small ones.
    has_tokens = np.diff(offsets) > 0
    starts = offsets[:-1][has_tokens]
    sums = np.zeros((len(columns), len(has_tokens)))
    if len(starts):
        for kind, column in enumerate(columns):
            sums[kind, has_tokens] = np.add.reduceat(column, starts)
    return list(sums)
