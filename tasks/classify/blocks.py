"""p-values that hold although the tokens of one sample depend on each other.

Blocks of samples are independent, so what is measured in each block apart can be compared. If a
quantity has mean 0 and its value in a block is as likely as its negative, each pattern of signs of
the blocks' values is as likely as the one seen; the p-value is the share of the patterns whose
sum is at least the one seen. All 2^16 patterns are counted, so nothing is drawn at random. A
block's value is a mean over its samples and so is nearly symmetric about its expectation: Canay,
Romano and Shaikh, "Randomization tests under an approximate symmetry assumption", Econometrica 85
(2017), who also show that the blocks' values may differ in spread.
"""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-12
"""Sums this close, relative to all values together, are ties: they count as reached."""
_NEURONS = 1024


def two_sided_p(values: np.ndarray) -> np.ndarray:
    """p float64 [neurons] of a sum of `values` float64 [neurons, blocks] as far from 0 as theirs.

    A block without a value has 0. At least 2 / 2^blocks.
    """
    signs = np.where(values.sum(axis=1) < 0, -1.0, 1.0)
    return np.minimum(2 * upper_p(values * signs[:, None]), 1.0)


def upper_p(values: np.ndarray) -> np.ndarray:
    """p float64 [neurons] of a sum of `values` float64 [neurons, blocks] as high as theirs."""
    # Where no value is negative, only patterns that flip zeros alone reach the sum.
    reaching = 2.0 ** (values == 0).sum(axis=1)
    mixed = np.flatnonzero((values < 0).any(axis=1))
    for start in range(0, len(mixed), _NEURONS):
        rows = mixed[start : start + _NEURONS]
        reaching[rows] = _count_reaching(values[rows])
    return reaching / 2.0 ** values.shape[1]


def _count_reaching(values: np.ndarray) -> np.ndarray:
    """How many of the sign patterns of each row have a sum at least that of the row itself.

    The patterns' sums are those of the left half plus those of the right half (Horowitz and Sahni,
    J. ACM 21, 1974). With both halves sorted, one walk up the left and down the right counts the
    pairs that reach: 2^9 steps instead of 2^16 sums, each step for all rows at once.
    """
    middle = values.shape[1] // 2
    left, right = _pattern_sums(values[:, :middle]), _pattern_sums(values[:, middle:])
    needed = left[0] + right[0] - _ROUNDING * np.abs(values).sum(axis=1)
    left.sort(axis=0)
    right.sort(axis=0)
    rows = np.arange(values.shape[0])
    n_left, n_right = len(left), len(right)
    # A last row that stops the walk: nothing reaches above it, nothing is left below it.
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
    """The sums float64 [2^blocks, rows] of all sign patterns, that of `values` itself first."""
    sums = np.zeros((1, len(values)))
    for column in values.T:
        sums = np.concatenate([sums + column, sums - column])
    return sums
