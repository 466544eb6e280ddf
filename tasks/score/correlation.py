"""Pearson's correlation over the concatenated tokens of several samples, from sums per sample."""

from __future__ import annotations

import numpy as np

N, SUM_X, SUM_Y, SUM_XX, SUM_YY, SUM_XY = range(6)


def sample_sums(real: np.ndarray, predicted: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Sums float64 [samples, 6] over each sample's tokens: n, x, y, xx, yy, xy.

    real, predicted: [tokens] of all samples one after the other; offsets: int64 [samples + 1].
    """
    x = real.astype(np.float64)
    y = predicted.astype(np.float64)
    columns = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    sums = np.zeros((len(offsets) - 1, 6))
    # Each sample is added up by itself: differences of a running sum would let one sample's
    # large numbers swallow another's small ones.
    filled = np.diff(offsets) > 0
    if filled.any():
        sums[filled] = np.add.reduceat(columns, offsets[:-1][filled], axis=0)
    return sums


def pearson(sums: np.ndarray) -> np.ndarray:
    """Signed correlation [...] from pooled sums [..., 6]; NaN where a side does not vary.

    r = (n Sxy - Sx Sy) / sqrt((n Sxx - Sx^2)(n Syy - Sy^2)), over the concatenation of all
    tokens as Bills et al. (2023) score, never a mean of per-sample correlations.
    """
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    spread_x = n * xx - x * x
    spread_y = n * yy - y * y
    # Below rounding error a side is constant: dividing by it would give any number.
    varies = (spread_x > 1e-9 * n * xx) & (spread_y > 1e-9 * n * yy)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (n * xy - x * y) / np.sqrt(spread_x * spread_y)
    return np.where(varies, np.clip(r, -1, 1), np.nan)


def bootstrap_interval(
    sums: np.ndarray, resamples: int, seed: int, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bounds [neurons] of the correlation when samples are drawn again.

    sums: [neurons, samples, 6]. Samples, not tokens, are drawn with replacement, because tokens
    of one sample are not independent; every neuron gets the same draws, as one matrix product.
    """
    samples = sums.shape[1]
    rng = np.random.default_rng([seed, samples])
    weights = rng.multinomial(samples, np.full(samples, 1 / samples), size=resamples)
    drawn = pearson(np.einsum("bs,nsk->nbk", weights.astype(np.float64), sums, optimize=True))
    tail = (1 - level) / 2 * 100
    defined = np.isfinite(drawn).any(1)
    bounds = np.full((2, len(sums)), np.nan)
    bounds[:, defined] = np.nanpercentile(drawn[defined], [tail, 100 - tail], axis=1)
    return bounds[0], bounds[1]
