"""Test whether an explanation predicts better than each control, paired over samples."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.score.correlation import pearson
from neuron_atlas.tasks.score.pool import by_tokens, pool
from neuron_atlas.tasks.statistics.sign_flips import upper_p

BLOCKS = 16
"""Blocks of samples; their 2^16 sign patterns are all counted."""
_OWN = 0


def paired_p(
    sums: np.ndarray, group: np.ndarray, is_exemplar: np.ndarray, groups: int
) -> np.ndarray:
    """Return the p-value that an explanation is no better than its controls, [3 tokens, groups].

    sums: [1 + predictions, 3, 2 roles, samples]: of the real activations (`real_sums`), then of
    each prediction (`cross_sums`), the own one first. With weights, the sums of a sample are
    multiplied by its weight. group: int64 [samples], ascending. is_exemplar: bool [samples].

    Each control is tested alone, and so is 0, the correlation of an uninformative prediction: p is
    the largest of these p-values. To beat the highest control is to beat all of them, so this needs
    no correction for choosing it (an intersection-union test; Berger and Hsu, Statistical Science
    11, 1996). p is 1 where a control is as high, NaN where the own correlation is undefined. An
    undefined control is not tested.

    One test: each sample adds a part to the difference of two correlations (its influence plus an
    equal share of the difference). If the predictions are equally good, swapping them in a sample
    flips the sign of its part, so all sign patterns are equally likely (sign_flips.py). Samples are
    folded into 16 blocks, each with its share of exemplars, and all patterns are counted.
    """
    pooled = pool(sums, group, groups)
    real, cross = by_tokens(pooled[0]), [by_tokens(one) for one in pooled[1:]]
    r = np.stack([pearson(real, one) for one in cross])
    size = np.bincount(group, minlength=groups)
    of_sample = by_tokens(sums[0])
    influences = [
        _influence(of_sample, by_tokens(one), real[:, :, group], its[:, :, group])
        for one, its in zip(sums[1:], cross, strict=True)
    ]
    block = _blocks(group, is_exemplar)
    own = r[_OWN]
    p = np.where(np.isnan(own), np.nan, 0.0)
    # The last rival is 0: no prediction.
    for its_r, its_influence in [*zip(r[1:], influences[1:], strict=True), (0.0, 0.0)]:
        difference = own - its_r
        parts = influences[_OWN] - its_influence + (difference / np.maximum(size, 1))[:, group]
        higher = difference > 0
        by_block = np.stack([_fold(part, group, block, groups) for part in parts])
        its_p = np.where(difference <= 0, 1.0, 0.0)  # NaN, an undefined control, gives 0.
        its_p[higher] = upper_p(by_block[higher])
        p = np.maximum(p, its_p)
    return p


def _influence(
    of_sample: np.ndarray, cross: np.ndarray, real: np.ndarray, pooled: np.ndarray
) -> np.ndarray:
    """Return the influence of each sample on its explanation's correlation, [3 tokens, samples].

    of_sample, cross: sums [3, 3 tokens, samples]. real, pooled: those of the sample's explanation.
    The influence of a token with standardized activation u and prediction v is u v - r (u^2 + v^2)
    / 2 (Devlin, Gnanadesikan and Kettenring, Biometrika 62, 1975), divided by the tokens.
    """
    n, x, xx = real
    y, yy, _ = pooled
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = x / n, y / n
        variance_x, variance_y = xx / n - mean_x**2, yy / n - mean_y**2
        its_n, its_x, its_xx = of_sample
        its_y, its_yy, its_xy = cross
        uv = its_xy - mean_x * its_y - mean_y * its_x + its_n * mean_x * mean_y
        uu = its_xx - 2 * mean_x * its_x + its_n * mean_x**2
        vv = its_yy - 2 * mean_y * its_y + its_n * mean_y**2
        r = pearson(real, pooled)
        return (
            uv / np.sqrt(variance_x * variance_y) - r / 2 * (uu / variance_x + vv / variance_y)
        ) / n


def _blocks(group: np.ndarray, is_exemplar: np.ndarray) -> np.ndarray:
    """Return each sample's block, int64 [samples]: dealt out in turn, exemplars first."""
    order = np.lexsort((~is_exemplar, group))
    starts = np.searchsorted(group, group)  # `group` is sorted, so `order` keeps its bounds.
    block = np.empty(len(group), np.int64)
    block[order] = np.arange(len(group)) - starts
    return block % BLOCKS


def _fold(parts: np.ndarray, group: np.ndarray, block: np.ndarray, groups: int) -> np.ndarray:
    """Add the parts [samples] of each explanation's blocks: float64 [groups, BLOCKS]."""
    folded = np.bincount(group * BLOCKS + block, weights=parts, minlength=groups * BLOCKS)
    return folded.reshape(groups, BLOCKS)
