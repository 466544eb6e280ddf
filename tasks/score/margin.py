"""Correlate all predictions with real activations over the dataset, with intervals and margin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from neuron_atlas.tasks.artifacts import CLAIMS, TOKENS
from neuron_atlas.tasks.score.bootstrap import bootstrap
from neuron_atlas.tasks.score.correlation import pearson
from neuron_atlas.tasks.score.pool import by_tokens, pool
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.score.weights import Weighted

_OWN, _OTHER = 0, 1
_PREDICTIONS = (*CLAIMS, "blind")
"""Predictions that are correlated with activations: all claims, and the blind control."""


def weighted_correlations(
    real: np.ndarray,
    cross: np.ndarray,
    group: np.ndarray,
    weighted: Weighted,
    settings: ScoreSettings,
    predictions: Sequence[str] = _PREDICTIONS,
) -> dict[str, np.ndarray]:
    """Return correlations of all predictions and the margin [3 tokens, groups], with intervals of
    own and margin.

    real: sums [3, 2 roles, samples]. cross: the same with each prediction [predictions, 3, 2 roles,
    samples]. predictions: their names; the first is the own claim, and the others are its controls.
    The tokens of a sample have its weight. The bootstrap draws samples within strata.
    """
    groups = len(weighted.counts)
    kinds = np.concatenate([real[None], cross]) * weighted.weight
    pooled = pool(kinds, group, groups)
    found = _correlate(pooled[0], pooled[1:])
    bounds = np.full((2, 2, len(TOKENS), groups), np.nan)
    # Samples of a stratum side by side, as the bootstrap draws them.
    order = np.lexsort((weighted.stratum, group))
    kinds = kinds.reshape(math.prod(kinds.shape[:-1]), kinds.shape[-1])

    def measure(sums: np.ndarray) -> np.ndarray:
        by_side = sums.reshape(1 + len(cross), 3, 2, *sums.shape[1:])
        return _correlate(by_side[0], by_side[1:])[[_OWN, -1]]

    starts = np.searchsorted(group, np.arange(groups))
    for counts in sorted(set(map(tuple, weighted.counts.tolist()))):
        if sum(counts) < settings.min_samples:
            continue
        # Explanations with the same number of samples share draws, so they are one product.
        chosen = np.flatnonzero((weighted.counts == counts).all(1))
        samples = order[starts[chosen, None] + np.arange(sum(counts))]
        bounds[..., chosen] = bootstrap(
            kinds[:, samples], measure, settings.resamples, settings.seed, strata=counts
        )
    names = ("correlation", *(f"control_{name}" for name in predictions[1:]), "margin")
    low, high = bounds
    return dict(zip(names, found, strict=True)) | {
        "ci_low": low[0],
        "ci_high": high[0],
        "margin_low": low[1],
        "margin_high": high[1],
    }


def _correlate(real: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """Return correlations and margin [predictions + 1, 3 tokens, ...] from pooled sums.

    The margin is over the highest control, or over 0 if all controls are negative.
    """
    by_prediction = np.moveaxis(cross, 1, 0)
    y = np.concatenate([by_prediction.sum(2, keepdims=True), by_prediction], axis=2)
    r = pearson(by_tokens(real), y)
    strongest = np.fmax(np.fmax.reduce(r[_OTHER:]), 0)
    return np.concatenate([r, (r[_OWN] - strongest)[None]])
