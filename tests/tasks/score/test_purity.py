"""Purity and recall, beside the same over as many copies of each sample as it weighs."""

from __future__ import annotations

import numpy as np
import pytest

from neuron_atlas.tasks.score.purity import average_precision, recall


def one_by_one(strength: np.ndarray, positive: np.ndarray) -> float:
    """Average precision by its definition, one threshold after the other."""
    total = 0.0
    for threshold in np.unique(strength)[::-1]:
        chosen, above = strength >= threshold, strength > threshold
        gain = (positive & chosen).sum() - (positive & above).sum()
        total += gain / positive.sum() * positive[chosen].mean()
    return total


def test_it_is_the_average_precision_over_copies_of_the_samples():
    rng = np.random.default_rng(3)
    for _ in range(20):
        strength = rng.integers(4, size=12).astype(float)
        positive = rng.random(12) < 0.5
        positive[0] = True
        copies = rng.integers(1, 6, size=12)
        expected = one_by_one(np.repeat(strength, copies), np.repeat(positive, copies))
        assert average_precision(strength, positive, copies) == pytest.approx(expected)


def test_a_prediction_that_ranks_nothing_has_the_share_of_positives():
    positive = np.array([True, False, False])
    found = average_precision(np.ones(3), positive, np.array([1.0, 1, 18]))
    assert found == pytest.approx(1 / 20)


def test_samples_without_a_strength_are_left_out_and_without_positives_there_is_none():
    strength = np.array([3, np.nan, 1])
    positive = np.array([True, False, False])
    assert average_precision(strength, positive, np.ones(3)) == 1
    assert np.isnan(average_precision(strength, ~positive & positive, np.ones(3)))
    assert np.isnan(average_precision(np.full(3, np.nan), positive, np.ones(3)))


def test_recall_is_the_weighted_share_of_positives_that_are_predicted():
    positive = np.array([True, True, False])
    predicted = np.array([True, False, True])
    assert recall(predicted, positive, np.array([1.0, 3, 9])) == pytest.approx(0.25)
    assert np.isnan(recall(predicted, ~positive & positive, np.ones(3)))
