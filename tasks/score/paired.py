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
    sums: np.ndarray,
    group: np.ndarray,
    is_exemplar: np.ndarray,
    groups: int,
    against_zero: bool = True,
) -> np.ndarray:
    """Return the p-value that an explanation is no better than its controls, [3 tokens, groups].

    sums: [1 + predictions, 3, 2 roles, samples]: of the real activations (`real_sums`), then of
    each prediction (`cross_sums`), the own one first. With weights, the sums of a sample are
    multiplied by its weight. group: int64 [samples], ascending. is_exemplar: bool [samples].
    against_zero: whether 0 is also tested.

    Each control is tested alone, and so is 0, the correlation of an uninformative prediction: p is
    the largest of these p-values. To beat the highest control is to beat all of them, so this needs
    no correction for choosing it (an intersection-union test; Berger and Hsu, Statistical Science
    11, 1996). p is 1 where a control is as high, NaN where the own correlation is undefined. An
    undefined control is not tested.

    One test: a correlation is a sum over samples, of activation times prediction, both
    standardized. If two predictions are equally good, swapping them in a sample flips the sign of
    its part of the difference, so all sign patterns are equally likely (sign_flips.py). Samples are
    folded into 16 blocks, each with its share of exemplars, and all patterns are counted.
    """
    pooled = pool(sums, group, groups)
    real, cross = by_tokens(pooled[0]), [by_tokens(one) for one in pooled[1:]]
    r = [pearson(real, one) for one in cross]
    of_sample = by_tokens(sums[0])
    parts = [
        _parts(of_sample, by_tokens(one), real[:, :, group], its[:, :, group])
        for one, its in zip(sums[1:], cross, strict=True)
    ]
    block = _blocks(group, is_exemplar)
    p = np.where(np.isnan(r[_OWN]), np.nan, 0.0)
    nothing = [(0.0, 0.0)] if against_zero else []
    for its_r, its_parts in [*zip(r[1:], parts[1:], strict=True), *nothing]:
        difference = parts[_OWN] - its_parts
        by_block = np.stack([_fold(one, group, block, groups) for one in difference])
        higher = r[_OWN] > its_r  # False for NaN, an undefined control.
        its_p = np.where(r[_OWN] <= its_r, 1.0, 0.0)
        its_p[higher] = upper_p(by_block[higher])
        p = np.maximum(p, its_p)
    return p


def _parts(
    of_sample: np.ndarray, cross: np.ndarray, real: np.ndarray, pooled: np.ndarray
) -> np.ndarray:
    """Return what each sample adds to its explanation's correlation, [3 tokens, samples].

    of_sample, cross: sums [3, 3 tokens, samples]. real, pooled: those of the sample's explanation.
    """
    n, x, xx = real
    y, yy, _ = pooled
    its_n, its_x, _ = of_sample
    its_y, _, its_xy = cross
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = x / n, y / n
        covariance = its_xy - mean_x * its_y - mean_y * its_x + its_n * mean_x * mean_y
        return covariance / np.sqrt((xx - x * mean_x) * (yy - y * mean_y))


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
