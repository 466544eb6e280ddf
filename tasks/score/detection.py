"""Detection: does a predicted trace tell the samples that excite a neuron from others?

A sample's predicted strength is the peak of its predicted trace, for the peak is what makes an
exemplar; or what the simulator said of the sample as a whole, where it did.
"""

from __future__ import annotations

import numpy as np


def detection_auc(strength: np.ndarray, exemplar: np.ndarray) -> np.ndarray:
    """Chance [neurons] that an exemplar is predicted to be stronger than a random sample.

    strength: [neurons, samples]; exemplar: bool, the same. Ties count half; 0.5 is chance. NaN
    where either kind of sample is missing or a strength is.
    """
    ahead = strength[:, :, None] - strength[:, None, :]
    pairs = exemplar[:, :, None] & ~exemplar[:, None, :]
    won = np.where(pairs, (ahead > 0) + 0.5 * (ahead == 0), 0).sum((1, 2))
    with np.errstate(invalid="ignore"):
        auc = won / pairs.sum((1, 2))
    return np.where(np.isnan(strength).any(1), np.nan, auc)


def find_threshold(strength: np.ndarray, exemplar: np.ndarray) -> np.ndarray:
    """The strength [neurons] above which a sample is taken for an exemplar.

    strength, exemplar: [neurons, samples] of the calibration samples. Of the values half-way
    between neighbouring strengths that differ it is the one of the highest balanced accuracy there,
    among equals the lowest; where none differ it is their value. NaN where either kind of sample is
    missing or a strength is.
    """
    if strength.shape[1] < 2:
        return np.full(len(strength), np.nan)
    ordered = np.sort(strength, axis=1)
    # Halved before they are added, lest the largest numbers overflow.
    between = ordered[:, :-1] / 2 + ordered[:, 1:] / 2
    reached = np.stack(
        [balanced_accuracy(strength, exemplar, column) for column in between.T], axis=1
    )
    undefined = np.isnan(reached).any(1)
    best = np.where(ordered[:, :-1] < ordered[:, 1:], reached, -1).argmax(1)
    return np.where(undefined, np.nan, between[np.arange(len(between)), best])


def balanced_accuracy(
    strength: np.ndarray, exemplar: np.ndarray, threshold: np.ndarray
) -> np.ndarray:
    """Mean [neurons] of the shares of exemplars above and of random samples not above `threshold`.

    strength, exemplar: [neurons, samples]; threshold: [neurons]. 0.5 is chance.
    """
    above = strength > threshold[:, None]
    with np.errstate(invalid="ignore"):
        found = (above & exemplar).sum(1) / exemplar.sum(1)
        spared = (~above & ~exemplar).sum(1) / (~exemplar).sum(1)
    unknown = np.isnan(strength).any(1) | np.isnan(threshold)
    return np.where(unknown, np.nan, (found + spared) / 2)
