"""Compute bootstrap intervals over samples, for many neurons together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

_BLOCK = 1 << 19
"""Numbers in one block of resampled sums; small enough for a core's cache."""


def draw_weights(samples: int, resamples: int, seed: int) -> np.ndarray:
    """Return how often each sample is drawn, float64 [samples, resamples]."""
    rng = np.random.default_rng([seed, samples])
    drawn = rng.multinomial(samples, np.full(samples, 1 / samples), size=resamples)
    return np.ascontiguousarray(drawn.T, dtype=np.float64)


def bootstrap(
    sums: np.ndarray,
    measure: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
    level: float = 0.95,
    strata: Sequence[int] = (),
) -> np.ndarray:
    """Return percentile bounds, float64 [2, ..., neurons], of a measure of pooled sums.

    sums: [kinds, neurons, samples]. measure: maps pooled sums [kinds, neurons, resamples] to
    [..., neurons, resamples]. level: share of draws within the bounds. strata: sizes of the strata
    that the samples are sorted by; each stratum is resampled by itself. One stratum by default.

    Samples are drawn with replacement, not tokens, because tokens of one sample are not
    independent. Each draw pools the same samples for all kinds, so differences between predictions
    are paired. Draws with an undefined measure do not enter its interval.
    """
    sizes = [size for size in strata if size] or [sums.shape[2]]
    weights = np.concatenate(
        [draw_weights(size, resamples, seed + number) for number, size in enumerate(sizes)]
    )
    bounds = [
        interval(measure(block @ weights), level)
        for block in _blocks(sums, _BLOCK // (len(sums) * resamples))
    ]
    return np.concatenate(bounds, axis=-1)


def interval(draws: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Return the bounds [2, ...] of the middle `level` of draws [..., resamples].

    NaN draws are ignored; NaN if there are no others. Values between draws are interpolated as by
    numpy.percentile.
    """
    ordered = np.sort(draws, axis=-1)  # NaN sort last.
    last = np.isfinite(ordered).sum(-1) - 1
    bounds = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        position = share * np.maximum(last, 0)
        below = np.floor(position).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(last, 0))
        low, high = (
            np.take_along_axis(ordered, index[..., None], -1)[..., 0] for index in (below, above)
        )
        bounds.append(np.where(last >= 0, low + (position - below) * (high - low), np.nan))
    return np.stack(bounds)


def _blocks(sums: np.ndarray, size: int) -> Iterator[np.ndarray]:
    size = max(1, size)
    for start in range(0, sums.shape[1], size):
        yield sums[:, start : start + size]
