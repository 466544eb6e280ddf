"""Measure detection: does a predicted trace separate exemplars from random samples?

A sample's predicted strength is the simulator's rating of the whole sample, if there is one. Else
it is the peak of the predicted trace, because exemplars are chosen by their peaks.
"""

from __future__ import annotations

import numpy as np


def detection_auroc(strength: np.ndarray, exemplar: np.ndarray) -> np.ndarray:
    """Return the probability [neurons] that an exemplar has a higher strength than a random sample.

    strength, exemplar: float and bool [neurons, samples]. Ties count half; 0.5 is chance level.
    Samples without a strength (NaN) are ignored; NaN if a kind has no sample with a strength.
    """
    has_strength = ~np.isnan(strength)
    difference = strength[:, :, None] - strength[:, None, :]
    pairs = (has_strength & exemplar)[:, :, None] & (has_strength & ~exemplar)[:, None, :]
    won = np.where(pairs, (difference > 0) + 0.5 * (difference == 0), 0).sum((1, 2))
    with np.errstate(invalid="ignore"):
        return won / pairs.sum((1, 2))


def find_threshold(strength: np.ndarray, exemplar: np.ndarray) -> np.ndarray:
    """Return the strength [neurons] above which a sample is classified as an exemplar.

    strength, exemplar: float and bool [neurons, samples] of the calibration samples. The candidates
    are the midpoints between neighboring strengths that differ; the one with the highest balanced
    accuracy wins, on a tie the lowest. If all strengths are equal, it is their value. Samples
    without a strength (NaN) are ignored; NaN if a kind has no sample with a strength.
    """
    if strength.shape[1] < 2:
        return np.full(len(strength), np.nan)
    ordered = np.sort(strength, axis=1)  # NaN sort last.
    # Halved before the sum, so the largest numbers do not overflow.
    midpoints = ordered[:, :-1] / 2 + ordered[:, 1:] / 2
    accuracies = np.stack(
        [balanced_accuracy(strength, exemplar, column) for column in midpoints.T], axis=1
    )
    best = np.where(ordered[:, :-1] < ordered[:, 1:], accuracies, -1).argmax(1)
    has_strength = ~np.isnan(strength)
    has_both = (has_strength & exemplar).any(1) & (has_strength & ~exemplar).any(1)
    return np.where(has_both, midpoints[np.arange(len(midpoints)), best], np.nan)


def balanced_accuracy(
    strength: np.ndarray, exemplar: np.ndarray, threshold: np.ndarray
) -> np.ndarray:
    """Return the mean [neurons] of the true positive and true negative rates at `threshold`.

    A sample above the threshold is classified as an exemplar. strength, exemplar: float and bool
    [neurons, samples]. threshold: [neurons]. 0.5 is chance level. Samples without a strength (NaN)
    are ignored; NaN without a threshold, or if a kind has no sample with a strength.
    """
    above = strength > threshold[:, None]
    positive, negative = (~np.isnan(strength) & kind for kind in (exemplar, ~exemplar))
    with np.errstate(invalid="ignore"):
        sensitivity = (above & positive).sum(1) / positive.sum(1)
        specificity = (~above & negative).sum(1) / negative.sum(1)
    return np.where(np.isnan(threshold), np.nan, (sensitivity + specificity) / 2)
