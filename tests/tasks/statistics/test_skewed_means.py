"""Intervals from sums of powers cover the mean at their level, also where values are skewed."""

import numpy as np
import pytest

from neuron_atlas.tasks.statistics.skewed_means import Means, skewed_means


def means(values: np.ndarray) -> Means:
    """Means over the first axis."""
    return skewed_means(np.stack([(values**power).sum(0) for power in (1, 2, 3)]), len(values))


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng, shape: rng.normal(size=shape), 0.0),
        (lambda rng, shape: rng.exponential(size=shape), 1.0),
        (lambda rng, shape: (rng.random(shape) < 0.2) * rng.exponential(size=shape), 0.2),
    ],
)
def test_an_interval_covers_and_a_test_rejects_at_the_level(draw, mean):
    values = draw(np.random.default_rng(0), (64, 4000))
    found = means(values)
    assert np.mean((found.low <= mean) & (mean <= found.high)) == pytest.approx(0.95, abs=0.02)
    assert np.mean(means(values - mean).p <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_sparse_values_are_covered_better_than_by_a_poisson_bootstrap():
    """Effects of a neuron that acts on one sample in twenty; both are below the level."""
    rng = np.random.default_rng(1)
    values = (rng.random((64, 400)) < 0.05) * rng.exponential(size=(64, 400))
    found = means(values)
    weights = rng.poisson(1, (400, 64))
    drawn = weights @ values / weights.sum(1, keepdims=True)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    covered = np.mean((found.low <= 0.05) & (found.high >= 0.05))
    assert covered > np.mean((low <= 0.05) & (high >= 0.05)) + 0.05


def test_the_interval_excludes_0_where_p_is_below_the_level():
    values = np.random.default_rng(2).exponential(size=(40, 2000)) - 0.8
    found = means(values)
    assert np.array_equal(found.p < 0.05, (found.low > 0) | (found.high < 0))


def test_constant_values_have_no_width_and_few_values_no_interval():
    found = means(np.array([[0.0, 0.3]] * 10))
    assert found.mean.tolist() == found.low.tolist() == found.high.tolist()
    assert found.p.tolist() == [1.0, 0.0]
    assert np.isnan(means(np.array([[1.0], [2.0]])).p).all()
