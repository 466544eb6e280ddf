"""Compute exact p-values of a difference of rates under permutation of the token labels.

Some of the n_visual + n_text tokens are high. Under random permutation of the labels visual and
text, the number H of high visual tokens is hypergeometric (Fisher, The Design of Experiments,
1935, section 21). The p-value is the probability of a difference of rates at least as far from 0
as the observed one. The difference is linear in H and has mean 0, so this is P(|H - E H| >=
|h - E H|): the limit of a two-sided permutation test with many shuffles. (The usual two-sided
Fisher test adds up all outcomes that are at most as probable as the observed one. The two agree
closely if the tails are similar.)

Probabilities are computed as in Loader, "Fast and accurate computation of binomial probabilities"
(2000). Its deviance form keeps all digits; differences of log-gammas lose half of them for counts
of millions.
"""

from __future__ import annotations

import math

import numpy as np

_TERMS = 128
"""Terms of a tail per step."""
_CHUNK_NEURONS = 1024
"""Neurons per step: few enough for the CPU cache."""
_NEGLIGIBLE = 1e-17
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def exchange_p(
    high_visual: np.ndarray, n_visual: np.ndarray, high_text: np.ndarray, n_text: np.ndarray
) -> np.ndarray:
    """Return two-sided p-values of high_visual / n_visual - high_text / n_text: float64 [neurons].

    All arguments are int [neurons]. p is 0 if it is below the smallest float64, and 1 if a role
    has no tokens.
    """
    high, total = high_visual + high_text, n_visual + n_text
    if total.size and int(total.max()) ** 2 >= 2**62:
        # Python integers, because products of the counts do not fit into 64 bits.
        high_visual, n_visual, high, total = (
            counts.astype(object) for counts in (high_visual, n_visual, high, total)
        )
    expected = n_visual * high  # E H times total: integers keep ties exact.
    distance = abs(total * high_visual - expected)
    divisor = np.maximum(total, 1)
    lower = ((expected - distance) // divisor).astype(np.int64)
    upper = (-(-(expected + distance) // divisor)).astype(np.int64)
    high, n_visual, total = (counts.astype(np.int64) for counts in (high, n_visual, total))
    # At most `lower` high visual tokens means at least high - lower high text tokens.
    above = _upper_tail(upper, high, n_visual, total)
    below = _upper_tail(high - lower, high, total - n_visual, total)
    return np.minimum(above + below, 1.0)


def _upper_tail(
    least: np.ndarray, high: np.ndarray, drawn: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Return P(H >= least), where H is the number of high tokens among `drawn` of `total` tokens,
    and `high` of all tokens are high.

    least: must be at or above the mean, so each term is smaller than the one before.
    """
    tail = np.where(least <= np.maximum(0, drawn + high - total), 1.0, 0.0)
    inside = np.flatnonzero((tail == 0) & (least <= np.minimum(high, drawn)))
    for start in range(0, len(inside), _CHUNK_NEURONS):
        rows = inside[start : start + _CHUNK_NEURONS]
        counts = (least[rows], high[rows], drawn[rows], total[rows])
        tail[rows] = np.exp(_log_probability(*counts)) * _sum_of_ratios(*counts)
    return tail


def _sum_of_ratios(
    first: np.ndarray, high: np.ndarray, drawn: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Return the sum of a tail divided by its first term: 1 + r(k) + r(k) r(k + 1) + ..., where
    r(k) = P(k + 1) / P(k) = (high - k) (drawn - k) / ((k + 1) (total - high - drawn + k + 1))."""
    ratio_sum = np.ones(len(first))
    term = np.ones(len(first))
    rows = np.arange(len(first))
    k, high, drawn, rest = (
        counts.astype(np.float64) for counts in (first, high, drawn, total - high - drawn)
    )
    while len(rows):
        at = k[rows, None] + np.arange(_TERMS)
        ratios = (high[rows, None] - at) * (drawn[rows, None] - at)
        ratios /= (at + 1) * (rest[rows, None] + at + 1)
        ratios[:, 0] *= term[rows]
        terms = np.cumprod(ratios, axis=1, out=ratios)
        ratio_sum[rows] += terms.sum(axis=1)
        term[rows] = terms[:, -1]
        k[rows] += _TERMS
        rows = rows[term[rows] > _NEGLIGIBLE * ratio_sum[rows]]
    return ratio_sum


def _log_probability(
    k: np.ndarray, high: np.ndarray, drawn: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Return log P(H = k), from three binomial probabilities with success probability drawn /
    total."""
    chance = drawn / total
    return (
        _log_binomial(k, high, chance)
        + _log_binomial(drawn - k, total - high, chance)
        - _log_binomial(drawn, total, chance)
    )


def _log_binomial(k: np.ndarray, n: np.ndarray, chance: np.ndarray) -> np.ndarray:
    k, n = k.astype(np.float64), n.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = (
            _stirling_error(n)
            - _stirling_error(k)
            - _stirling_error(n - k)
            - _deviance(k, n * chance)
            - _deviance(n - k, n * (1 - chance))
            - _HALF_LOG_2PI
            - 0.5 * (np.log(k) + np.log1p(-k / n))
        )
        log_none, log_all = n * np.log1p(-chance), n * np.log(chance)
    # With n = 0, the probability of k = 0 is 1.
    return np.where(n == 0, 0.0, np.where(k == 0, log_none, np.where(k == n, log_all, inner)))


def _stirling_error(n: np.ndarray) -> np.ndarray:
    """Return log n! minus Stirling's formula, for integer n."""
    large = np.maximum(n, 16)
    square = large**-2
    series = 1 / 1680 - square / 1188
    for coefficient in (1 / 1260, 1 / 360, 1 / 12):
        series = coefficient - square * series
    return np.where(n < 16, _SMALL[np.minimum(n, 15).astype(np.int64)], series / large)


_SMALL = np.array(
    [0.0] + [math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - _HALF_LOG_2PI for n in range(1, 16)]
)


def _deviance(k: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return k log(k / mean) + mean - k, by a series if k is close to the mean."""
    v = (k - mean) / (k + mean)
    series = np.zeros_like(v)
    for power in range(19, 1, -2):
        series = (series + 1 / power) * v**2
    near = (k - mean) * v + 2 * k * v * series
    return np.where(abs(v) < 0.1, near, k * np.log(k / mean) + mean - k)
