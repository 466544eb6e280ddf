"""Detection: does a predicted trace tell the samples that excite a neuron from others?

A sample's predicted strength is the peak of its predicted trace, for the peak is what makes an
exemplar; or what the simulator said of the sample as a whole, where it did.
"""

from __future__ import annotations

import numpy as np


def detection_auc(strength: np.ndarray, exemplar: np.ndarray) -> np.ndarray:
    """Chance [neurons] that an exemplar is predicted to be stronger than a random sample.

    strength: [neurons, samples]; exemplar: bool, the same. Ties count half; 0.5 is chance. Samples
    without a strength do not count; NaN where no sample of either kind has one.
    """
    known = ~np.isnan(strength)
    ahead = strength[:, :, None] - strength[:, None, :]
    pairs = (known & exemplar)[:, :, None] & (known & ~exemplar)[:, None, :]
    won = np.where(pairs, (ahead > 0) + 0.5 * (ahead == 0), 0).sum((1, 2))
    with np.errstate(invalid="ignore"):
        return won / pairs.sum((1, 2))


def find_threshold(strength: np.ndarray, exemplar: np.ndarray) -> np.ndarray:
    """The strength [neurons] above which a sample is taken for an exemplar.

    strength, exemplar: [neurons, samples] of the calibration samples. Of the values half-way
    between neighbouring strengths that differ it is the one of the highest balanced accuracy there,
    among equals the lowest; where none differ it is their value. Samples without a strength do not
    count; NaN where no sample of either kind has one.
    """
    if strength.shape[1] < 2:
        return np.full(len(strength), np.nan)
    ordered = np.sort(strength, axis=1)  # NaN come last.
    # Halved before they are added, lest the largest numbers overflow.
    between = ordered[:, :-1] / 2 + ordered[:, 1:] / 2
    reached = np.stack(
        [balanced_accuracy(strength, exemplar, column) for column in between.T], axis=1
    )
    best = np.where(ordered[:, :-1] < ordered[:, 1:], reached, -1).argmax(1)
    known = ~np.isnan(strength)
    has_both = (known & exemplar).any(1) & (known & ~exemplar).any(1)
    return np.where(has_both, between[np.arange(len(between)), best], np.nan)


def balanced_accuracy(
    strength: np.ndarray, exemplar: np.ndarray, threshold: np.ndarray
) -> np.ndarray:
    """Mean [neurons] of the shares of exemplars above and of random samples not above `threshold`.

    strength, exemplar: [neurons, samples]; threshold: [neurons]. 0.5 is chance. Samples without a
    strength do not count; NaN where no sample of either kind has one, or there is no threshold.
    """
    above = strength > threshold[:, None]
    exciting, other = (~np.isnan(strength) & kind for kind in (exemplar, ~exemplar))
    with np.errstate(invalid="ignore"):
        found = (above & exciting).sum(1) / exciting.sum(1)
        spared = (~above & other).sum(1) / other.sum(1)
    return np.where(np.isnan(threshold), np.nan, (found + spared) / 2)
