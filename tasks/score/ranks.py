"""Compute Spearman's correlation and the AUROC, which depend only on the order of predictions.

Activations and predictions are float16. There are so few float16 values that tokens are ranked by
counting each value, in one pass and without sorting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.artifacts import TOKENS


@dataclass(frozen=True)
class RankScores:
    """Rank measures of one neuron over all, visual and text tokens, [3] each; NaN if undefined.

    n_active: int64, active tokens.
    """

    spearman: np.ndarray
    auroc: np.ndarray
    n_active: np.ndarray


def rank_scores(
    real: tuple[np.ndarray, np.ndarray],
    predicted: tuple[np.ndarray, np.ndarray],
    active: tuple[np.ndarray, np.ndarray],
) -> RankScores:
    """Return Spearman's correlation and the AUROC over the tokens of a neuron's samples.

    real, predicted: finite float16 [tokens], visual and text. active: bool [tokens], the positives
    of the AUROC. Ties share their mean rank. Spearman's correlation is Pearson's of the ranks.
    AUROC = (R - a(a+1)/2) / (a (n-a)), where R is the sum of the ranks, by prediction, of the a
    active of n tokens (Mann and Whitney, 1947).
    """
    ranks = list(zip(_ranks(*real), _ranks(*predicted), strict=True))
    positives = (np.concatenate(active), *active)
    spearman, auroc = np.full((2, len(TOKENS)), np.nan)
    n_active = np.zeros(len(TOKENS), dtype=np.int64)
    for tokens, ((x, y), is_positive) in enumerate(zip(ranks, positives, strict=True)):
        spearman[tokens] = _correlation(x, y)
        n_active[tokens] = n_positive = int(is_positive.sum())
        if 0 < n_positive < len(y):
            total = float(y[is_positive].sum()) - n_positive * (n_positive + 1) / 2
            auroc[tokens] = total / (n_positive * (len(y) - n_positive))
    return RankScores(spearman, auroc, n_active)


def _ranks(visual: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean ranks, from 1, of all tokens among all, and of visual and text tokens among their
    own."""
    keys = [_ordered_keys(visual), _ordered_keys(text)]
    least = min((int(key.min()) for key in keys if len(key)), default=0)
    most = max((int(key.max()) for key in keys if len(key)), default=0)
    keys = [key - np.uint16(least) for key in keys]
    counts = [np.bincount(key, minlength=most - least + 1) for key in keys]
    of_all = _mean_ranks(counts[0] + counts[1])
    return (
        np.concatenate([of_all.take(key) for key in keys]),
        _mean_ranks(counts[0]).take(keys[0]),
        _mean_ranks(counts[1]).take(keys[1]),
    )


def _ordered_keys(values: np.ndarray) -> np.ndarray:
    """Map float16 to uint16 in the same order: sign and magnitude become one ascending number."""
    bits = np.ascontiguousarray(values).view(np.uint16)
    keys = np.where(bits >= 0x8000, ~bits, bits | np.uint16(0x8000))
    return keys + (keys == 0x7FFF)  # -0 equals 0.


def _mean_ranks(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) - (counts - 1) / 2


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Pearson's correlation of ranks, whose mean is (n + 1) / 2; NaN if undefined."""
    n = len(x)
    if n < 2:
        return float("nan")
    middle = (n + 1) / 2
    x, y = x - middle, y - middle
    spread = float(x @ x) * float(y @ y)
    return float(x @ y) / spread**0.5 if spread > 0 else float("nan")
