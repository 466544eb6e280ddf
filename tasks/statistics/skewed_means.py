"""Intervals and p-values of means of skewed values, from sums of powers alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POWERS = 3
"""Sums that a mean needs: of the values, their squares and their cubes."""
_LEVEL = 0.95


@dataclass(frozen=True)
class Means:
    """Means with 95 % intervals and two-sided p-values of a mean of 0; float64 arrays."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray


def skewed_means(sums: np.ndarray, n: int) -> Means:
    """Return the means of `n` independent values whose sums of powers are given.

    sums: float64 [3, ...]. The interval corrects Student's t for skewness by Hall's transformation
    (P. Hall, "On the removal of skewness by transformation", J. R. Stat. Soc. B 54, 1992), which
    is as accurate as the bootstrap-t: its error falls with 1/n, that of a normal interval or of the
    percentile bootstrap with 1/sqrt(n). A constant value has an interval of width 0, and p = 1 if
    it is 0. With fewer than 3 values, all bounds and p are NaN.
    """
    from scipy.stats import t as student

    first, second, third = (one / max(n, 1) for one in sums)
    if n < POWERS:
        nan = np.full(first.shape, np.nan)
        return Means(first, nan, nan, nan)
    variance = np.maximum(second - first**2, 0)
    # Rounding leaves a little variance where all values are equal.
    variance = np.where(variance <= 1e-14 * second, 0, variance)
    spread = np.sqrt(variance)
    is_constant = spread == 0
    safe = np.where(is_constant, 1, spread)
    skewness = (third - 3 * first * second + 2 * first**3) / safe**3
    # Sample skewness cannot exceed this; beyond it rounding speaks.
    bound = (n - 2) / np.sqrt(n - 1)
    a = np.clip(skewness, -bound, bound) / np.sqrt(n)
    root = np.sqrt(n - 1)
    quantile = float(student.ppf(0.5 + _LEVEL / 2, n - 1))
    ends = [_inverse(np.full(first.shape, end), a) for end in (quantile, -quantile)]
    low, high = (first - end * safe / root for end in ends)
    statistic = _transformed(root * first / safe, a)
    p = 2 * student.sf(np.abs(statistic), n - 1)
    p = np.where(is_constant, np.where(first == 0, 1.0, 0.0), p)
    return Means(first, np.where(is_constant, first, low), np.where(is_constant, first, high), p)


def _transformed(t: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Hall's cubic in t, which increases everywhere; a: skewness / sqrt(n)."""
    return t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6


def _inverse(value: np.ndarray, a: np.ndarray) -> np.ndarray:
    small = np.abs(a) < 1e-9
    safe = np.where(small, 1, a)
    return np.where(small, value, 3 * (np.cbrt(1 + safe * value - safe**2 / 6) - 1) / safe)
