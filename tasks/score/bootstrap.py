"""Bootstrap intervals: samples drawn again with replacement, for many neurons at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

_BLOCK = 1 << 19
"""Numbers that are drawn again at once: a block that stays in a core's cache."""


def draw_weights(samples: int, resamples: int, seed: int) -> np.ndarray:
    """How often each sample is drawn, float64 [samples, resamples]; the same for every neuron."""
    rng = np.random.default_rng([seed, samples])
    drawn = rng.multinomial(samples, np.full(samples, 1 / samples), size=resamples)
    return np.ascontiguousarray(drawn.T, dtype=np.float64)


def bootstrap(
    sums: np.ndarray,
    measure: Callable[[np.ndarray], np.ndarray],
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> np.ndarray:
    """Percentile bounds float64 [2, ..., neurons] of what `measure` makes of sums.

    sums: [kinds, neurons, samples]. measure: from pooled sums [kinds, neurons, resamples] to
    [..., neurons, resamples].
    Samples, not tokens, are drawn with replacement, because tokens of one sample are not
    independent; each draw pools one and the same samples for all kinds, so differences between
    predictions are paired. Draws in which a measure is undefined are left out of its interval.
    """
    weights = draw_weights(sums.shape[2], resamples, seed)
    bounds = [
        interval(measure(block @ weights), level)
        for block in _blocks(sums, _BLOCK // (len(sums) * resamples))
    ]
    return np.concatenate(bounds, axis=-1)


def interval(draws: np.ndarray, level: float = 0.95) -> np.ndarray:
    """The middle `level` of draws [..., resamples] as bounds [2, ...]; NaN draws do not count.

    Between draws it is interpolated as numpy.percentile does.
    """
    ordered = np.sort(draws, axis=-1)  # NaN come last.
    last = np.isfinite(ordered).sum(-1) - 1
    bounds = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        place = share * np.maximum(last, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(last, 0))
        low, high = (
            np.take_along_axis(ordered, index[..., None], -1)[..., 0] for index in (below, above)
        )
        bounds.append(np.where(last >= 0, low + (place - below) * (high - low), np.nan))
    return np.stack(bounds)


def _blocks(sums: np.ndarray, size: int) -> Iterator[np.ndarray]:
    size = max(1, size)
    for start in range(0, sums.shape[1], size):
        yield sums[:, start : start + size]
