"""What only depends on the order of predictions: Spearman's correlation and the AUROC.

Activations and predictions are kept as float16, of which there are so few that tokens are ranked
by counting how many there are of each, in one pass and without sorting them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.artifacts import TOKENS


@dataclass(frozen=True)
class Order:
    """Measures of one neuron over all, visual and text tokens, [3] each; NaN where undefined."""

    spearman: np.ndarray
    auroc: np.ndarray
    n_active: np.ndarray


def compare_order(
    real: tuple[np.ndarray, np.ndarray],
    predicted: tuple[np.ndarray, np.ndarray],
    active: tuple[np.ndarray, np.ndarray],
) -> Order:
    """Spearman and AUROC over the concatenated tokens of a neuron's samples.

    real, predicted: finite float16 [tokens], visual then text. active: bool [tokens], which real
    ones the AUROC takes as positive. Ties share their mean rank. Spearman's correlation is
    Pearson's of the ranks; AUROC = (R - a(a+1)/2) / (a (n-a)), where R adds up the ranks that the
    a active of n tokens have by prediction (Mann and Whitney, 1947).
    """
    ranks = list(zip(_ranks(*real), _ranks(*predicted), strict=True))
    whole = np.concatenate(active)
    chosen = (whole, *active)
    spearman, auroc = np.full((2, len(TOKENS)), np.nan)
    n_active = np.zeros(len(TOKENS), dtype=np.int64)
    for place, ((x, y), fires) in enumerate(zip(ranks, chosen, strict=True)):
        spearman[place] = _correlation(x, y)
        n_active[place] = fired = int(fires.sum())
        if 0 < fired < len(y):
            total = float(y[fires].sum()) - fired * (fired + 1) / 2
            auroc[place] = total / (fired * (len(y) - fired))
    return Order(spearman, auroc, n_active)


def _ranks(visual: np.ndarray, text: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean ranks from 1 of the tokens among all, among the visual and among the text ones."""
    keys = [_ordered_keys(visual), _ordered_keys(text)]
    least = min((int(key.min()) for key in keys if len(key)), default=0)
    most = max((int(key.max()) for key in keys if len(key)), default=0)
    keys = [key - np.uint16(least) for key in keys]
    counts = [np.bincount(key, minlength=most - least + 1) for key in keys]
    whole = _mean_ranks(counts[0] + counts[1])
    return (
        np.concatenate([whole.take(key) for key in keys]),
        _mean_ranks(counts[0]).take(keys[0]),
        _mean_ranks(counts[1]).take(keys[1]),
    )


def _ordered_keys(values: np.ndarray) -> np.ndarray:
    """uint16 that are ordered as the float16 are: sign and magnitude, turned the right way."""
    bits = np.ascontiguousarray(values).view(np.uint16)
    keys = np.where(bits >= 0x8000, ~bits, bits | np.uint16(0x8000))
    return keys + (keys == 0x7FFF)  # -0, which is the same as 0.


def _mean_ranks(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) - (counts - 1) / 2


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of ranks, whose mean is known."""
    n = len(x)
    if n < 2:
        return float("nan")
    middle = (n + 1) / 2
    x, y = x - middle, y - middle
    spread = float(x @ x) * float(y @ y)
    return float(x @ y) / spread**0.5 if spread > 0 else float("nan")
