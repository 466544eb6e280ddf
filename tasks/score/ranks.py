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
    positives = (np.concatenate(active), *active)
    sides = zip(_ranks(*real), _ranks(*predicted), strict=True)
    spearman, auroc = np.full((2, len(TOKENS)), np.nan)
    n_active = np.zeros(len(TOKENS), dtype=np.int64)
    for tokens, ((x, y), is_positive) in enumerate(zip(sides, positives, strict=True)):
        spearman[tokens] = _correlation(x, y)
        n, n_positive = len(is_positive), int(np.count_nonzero(is_positive))
        n_active[tokens] = n_positive
        if 0 < n_positive < n:
            total = float(y.of_tokens[is_positive].sum()) - n_positive * (n_positive + 1) / 2
            auroc[tokens] = total / (n_positive * (n - n_positive))
    return RankScores(spearman, auroc, n_active)


@dataclass(frozen=True)
class _Ranks:
    """Mean ranks, from 1, of tokens. spread: sum of squares about their mean, (n + 1) / 2."""

    of_tokens: np.ndarray
    spread: float


def _ranks(visual: np.ndarray, text: np.ndarray) -> tuple[_Ranks, _Ranks, _Ranks]:
    """Return the ranks of all tokens among all, and of visual and text tokens among their own."""
    keys = _ordered_keys(np.concatenate([visual, text]))
    least = int(keys.min(initial=0xFFFF))
    distinct = np.flatnonzero(np.bincount(keys))
    codes = np.empty(0xFFFF - least + 1, dtype=np.intp)
    codes[distinct - least] = np.arange(len(distinct))
    of_tokens = codes.take(keys - np.uint16(least))
    sides = of_tokens[: len(visual)], of_tokens[len(visual) :]
    counts = [np.bincount(side, minlength=len(distinct)) for side in sides]
    return (
        _mean_ranks(of_tokens, counts[0] + counts[1]),
        _mean_ranks(sides[0], counts[0]),
        _mean_ranks(sides[1], counts[1]),
    )


def _mean_ranks(codes: np.ndarray, counts: np.ndarray) -> _Ranks:
    """Return the ranks of tokens by their codes. counts: tokens with each code, in order."""
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return _Ranks(ranks.take(codes), float(counts @ np.square(ranks - (len(codes) + 1) / 2)))


def _ordered_keys(values: np.ndarray) -> np.ndarray:
    """Map float16 to uint16 in the same order: sign and magnitude become one ascending number."""
    bits = np.ascontiguousarray(values).view(np.uint16)
    keys = np.where(bits >= 0x8000, ~bits, bits | np.uint16(0x8000))
    return keys + (keys == 0x7FFF)  # -0 equals 0.


def _correlation(x: _Ranks, y: _Ranks) -> float:
    """Return Pearson's correlation of ranks, whose mean is (n + 1) / 2; NaN if undefined."""
    n = len(x.of_tokens)
    spread = x.spread * y.spread
    if n < 2 or spread <= 0:
        return float("nan")
    # Ranks are multiples of 1/2, so these sums are exact. No BLAS: it may start threads.
    products = float(np.einsum("i,i", x.of_tokens, y.of_tokens))
    return (products - n * ((n + 1) / 2) ** 2) / spread**0.5
