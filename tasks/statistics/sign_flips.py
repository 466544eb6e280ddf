"""Compute p-values that are valid although tokens of one sample depend on each other.

Blocks of samples are independent, so a statistic can be computed per block. If its values are
symmetric about 0 under the null hypothesis, all sign patterns of the values are equally likely.
The p-value is the share of sign patterns whose sum is at least the observed one. All 2^16 patterns
are counted, without random draws. A block's value is a mean over its samples, so it is nearly
symmetric about its expectation. This suffices, and the blocks may differ in variance: Canay,
Romano and Shaikh, "Randomization tests under an approximate symmetry assumption", Econometrica 85
(2017).
"""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-12
"""Sums within this tolerance, relative to the sum of absolute values, count as ties."""
_CHUNK_NEURONS = 1024


def two_sided_p(values: np.ndarray) -> np.ndarray:
    """Return the two-sided p-value of the sum of `values` over blocks: float64 [neurons].

    values: float64 [neurons, blocks], 0 for a block without a value. The smallest possible p is
    2 / 2^blocks.
    """
    signs = np.where(values.sum(axis=1) < 0, -1.0, 1.0)
    return np.minimum(2 * upper_p(values * signs[:, None]), 1.0)


def upper_p(values: np.ndarray) -> np.ndarray:
    """Return the one-sided p-value of a high sum of `values` over blocks: float64 [neurons].

    values: float64 [neurons, blocks], 0 for a block without a value.
    """
    # If no value is negative, only the patterns that flip zeros reach the sum.
    reaching = 2.0 ** (values == 0).sum(axis=1)
    mixed = np.flatnonzero((values < 0).any(axis=1))
    for start in range(0, len(mixed), _CHUNK_NEURONS):
        rows = mixed[start : start + _CHUNK_NEURONS]
        reaching[rows] = _count_reaching(values[rows])
    return reaching / 2.0 ** values.shape[1]


def _count_reaching(values: np.ndarray) -> np.ndarray:
    """Count, for each row, the sign patterns whose sum is at least the row's own sum.

    A pattern's sum is a sum of the left half plus a sum of the right half (Horowitz and Sahni, J.
    ACM 21, 1974). With both halves sorted, one walk up the left and down the right counts the
    pairs: 2^9 steps instead of 2^16 sums, each step vectorized over the rows.
    """
    middle = values.shape[1] // 2
    left, right = _pattern_sums(values[:, :middle]), _pattern_sums(values[:, middle:])
    needed = left[0] + right[0] - _ROUNDING * np.abs(values).sum(axis=1)
    left.sort(axis=0)
    right.sort(axis=0)
    rows = np.arange(values.shape[0])
    n_left, n_right = len(left), len(right)
    # Sentinel rows stop the walk: a sum with -inf never reaches the needed value.
    left = np.vstack([left, np.full_like(rows, -np.inf, dtype=np.float64)]).ravel()
    right = np.vstack([np.full_like(rows, -np.inf, dtype=np.float64), right]).ravel()
    width = len(rows)
    at_left = rows.copy()  # Positions in the flattened arrays: one step is `width`.
    at_right = rows + n_right * width
    count = np.zeros(width, dtype=np.int64)
    for _ in range(n_left + n_right):
        reaches = left[at_left] + right[at_right] >= needed
        moved = reaches * width
        at_right -= moved
        count += np.where(reaches | (at_left >= n_left * width), 0, n_right - at_right // width)
        at_left = np.minimum(at_left + (width - moved), rows + n_left * width)
    return count


def _pattern_sums(values: np.ndarray) -> np.ndarray:
    """Return the sums of all sign patterns, float64 [2^blocks, rows]; the first is the row's own
    sum."""
    sums = np.zeros((1, len(values)))
    for column in values.T:
        sums = np.concatenate([sums + column, sums - column])
    return sums
