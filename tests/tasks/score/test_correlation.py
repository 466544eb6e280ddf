import numpy as np
import pytest

from neuron_atlas.tasks.score.correlation import cross_sums, has_variance, pearson, real_sums
from tests.tasks.score.pooled import concatenated, correlation, drawn, sums_of


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("strength", [1.0, 0.1, -0.5])
def test_the_correlation_is_numpys_over_the_concatenation_of_all_tokens(seed, strength):
    samples = drawn(np.random.default_rng(seed), 12, strength)
    assert correlation(samples) == pytest.approx(
        np.corrcoef(*concatenated(samples))[0, 1], abs=1e-9
    )


def test_it_is_not_the_mean_of_the_samples_correlations():
    """Within each sample the prediction is perfect, and between the samples it is upside down."""
    weak_and_promised = (np.array([0.0, 1.0]), np.array([10.0, 11.0]))
    strong_and_denied = (np.array([10.0, 11.0]), np.array([0.0, 1.0]))
    samples = [weak_and_promised, strong_and_denied]
    assert [correlation([sample]) for sample in samples] == pytest.approx([1, 1])
    # x - 5.5 is -5.5, -4.5, 4.5, 5.5 and y - 5.5 is 4.5, 5.5, -5.5, -4.5.
    assert correlation(samples) == pytest.approx(-99 / 101)


def test_it_is_signed_and_has_no_units():
    x = np.array([1.0, 2.0, 4.0, 3.0])
    assert correlation([(x, 5 * x + 100)]) == pytest.approx(1)
    assert correlation([(x, -0.01 * x)]) == pytest.approx(-1)


@pytest.mark.parametrize("level", [0.0, 1.0, -3.7, 0.1, 1e6, 1e-6])
def test_a_side_that_does_not_vary_has_no_correlation(level):
    x = np.random.default_rng(0).normal(size=999)
    flat = np.full(999, level)
    assert np.isnan(correlation([(x, flat)]))
    assert np.isnan(correlation([(flat, x)]))
    assert np.isnan(correlation([(flat, flat)]))
    assert not has_variance(999, flat.sum(), (flat * flat).sum())
    assert has_variance(999, x.sum(), (x * x).sum())


def test_a_small_spread_on_a_large_level_still_correlates():
    x = np.random.default_rng(0).normal(size=500)
    assert correlation([(x, 100 + x)]) == pytest.approx(1, abs=1e-6)
    assert correlation([(1e-8 * x, 1e-8 * x)]) == pytest.approx(1)


def test_nothing_at_all_has_no_correlation():
    assert np.isnan(pearson(np.zeros(3), np.zeros(3)))
    assert np.isnan(correlation([(np.array([2.0]), np.array([3.0]))]))


def test_sums_of_a_sample_without_tokens_are_zero():
    offsets = np.array([0, 0, 3, 3])
    real = real_sums(np.arange(3.0), offsets)
    cross = cross_sums(np.arange(3.0), np.arange(1.0, 4.0), offsets)
    assert real.T.tolist() == [[0, 0, 0], [3, 3, 5], [0, 0, 0]]
    assert cross.T.tolist() == [[0, 0, 0], [6, 14, 8], [0, 0, 0]]


def test_many_correlations_at_once_are_each_their_own():
    rng = np.random.default_rng(3)
    pooled = [[side.sum(1) for side in sums_of(drawn(rng, 5, strength))] for strength in (1, 0, -1)]
    real, cross = (np.stack(side, axis=-1)[:, None] for side in zip(*pooled, strict=True))
    together = pearson(real, cross)
    assert together.shape == (1, 3)
    assert together[0].tolist() == [float(pearson(*each)) for each in pooled]


def test_one_samples_large_numbers_do_not_swallow_anothers_small_ones() -> None:
    rng = np.random.default_rng(5)
    small = rng.normal(0, 1e-2, 300)
    predicted = small + rng.normal(0, 1e-2, 300)
    nothing = np.empty(0)
    samples = [(np.full(20_000, 6e4), np.zeros(20_000)), (nothing, nothing), (small, predicted)]
    real, cross = sums_of(samples)
    assert not np.concatenate([real[:, 1], cross[:, 1]]).any()
    expected = np.corrcoef(small, predicted)[0, 1]
    np.testing.assert_allclose(pearson(real[:, 2], cross[:, 2]), expected, rtol=1e-6)
