import numpy as np
import pytest

from tasks.score.correlation import bootstrap_interval, pearson, sample_sums


def sums_of(samples: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    real, predicted = (np.concatenate(side) for side in zip(*samples, strict=True))
    offsets = np.cumsum([0, *(len(x) for x, _ in samples)])
    return sample_sums(real, predicted, offsets)


def correlation(samples: list[tuple[np.ndarray, np.ndarray]]) -> float:
    return float(pearson(sums_of(samples).sum(0)))


def drawn(
    rng: np.random.Generator, samples: int, strength: float = 1.0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Samples of different lengths and levels whose sides correlate."""
    pairs = []
    for _ in range(samples):
        x = rng.normal(rng.normal(), 1, int(rng.integers(1, 40)))
        pairs.append((x.astype(np.float32), (strength * x + rng.normal(size=len(x))) * 3 - 7))
    return pairs


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("strength", [1.0, 0.1, -0.5])
def test_the_correlation_is_numpys_over_the_concatenation_of_all_tokens(seed, strength):
    samples = drawn(np.random.default_rng(seed), 12, strength)
    real, predicted = (np.concatenate(side) for side in zip(*samples, strict=True))
    assert correlation(samples) == pytest.approx(np.corrcoef(real, predicted)[0, 1], abs=1e-9)


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


def test_a_small_spread_on_a_large_level_still_correlates():
    x = np.random.default_rng(0).normal(size=500)
    assert correlation([(x, 100 + x)]) == pytest.approx(1, abs=1e-6)
    assert correlation([(1e-8 * x, 1e-8 * x)]) == pytest.approx(1)


def test_nothing_at_all_has_no_correlation():
    assert np.isnan(pearson(np.zeros(6)))
    assert np.isnan(correlation([(np.array([2.0]), np.array([3.0]))]))


def test_sums_of_a_sample_without_tokens_are_zero():
    sums = sample_sums(np.arange(3.0), np.arange(3.0), np.array([0, 0, 3, 3]))
    assert sums[:, 0].tolist() == [0, 3, 0]
    assert sums[1].tolist() == [3, 3, 3, 5, 5, 5]
    assert not sums[[0, 2]].any()


def test_many_correlations_at_once_are_each_their_own():
    rng = np.random.default_rng(3)
    pooled = np.stack([sums_of(drawn(rng, 5, strength)).sum(0) for strength in (1, 0, -1)])
    together = pearson(pooled[None])
    assert together.shape == (1, 3)
    assert together[0].tolist() == [float(pearson(row)) for row in pooled]


def test_the_interval_is_that_of_drawing_samples_again_one_by_one():
    samples = drawn(np.random.default_rng(5), 9)
    sums = sums_of(samples)
    low, high = bootstrap_interval(sums[None], resamples=400, seed=11)
    rng = np.random.default_rng([11, 9])
    again = []
    for _ in range(400):
        picked = np.repeat(np.arange(9), rng.multinomial(9, np.full(9, 1 / 9)))
        real, predicted = (np.concatenate([samples[i][side] for i in picked]) for side in (0, 1))
        again.append(np.corrcoef(real, predicted)[0, 1])
    assert [low[0], high[0]] == pytest.approx(np.percentile(again, [2.5, 97.5]), abs=1e-9)


def test_the_interval_is_the_same_again_and_for_each_neuron_as_if_alone():
    rng = np.random.default_rng(1)
    sums = np.stack([sums_of(drawn(rng, 7, strength)) for strength in (2, 0.2, -1)])
    low, high = bootstrap_interval(sums, resamples=200, seed=4)
    again = bootstrap_interval(sums, resamples=200, seed=4)
    np.testing.assert_array_equal((low, high), again)
    for place in range(3):
        alone = bootstrap_interval(sums[place : place + 1], resamples=200, seed=4)
        assert (alone[0][0], alone[1][0]) == pytest.approx((low[place], high[place]), abs=1e-12)
    other = bootstrap_interval(sums, resamples=200, seed=5)
    assert (np.stack(other) != np.stack((low, high))).any()


def test_a_95_percent_interval_covers_the_truth_about_as_often():
    """Of 200 experiments with 40 samples each; fewer samples make percentile intervals narrow."""
    rng = np.random.default_rng(2)
    truth = 1 / np.sqrt(2)
    experiments = []
    for _ in range(200):
        x = rng.normal(size=(40, 5))
        pairs = zip(x, x + rng.normal(size=x.shape), strict=True)
        experiments.append(sums_of(list(pairs)))
    low, high = bootstrap_interval(np.stack(experiments), resamples=500, seed=0)
    covered = ((low < truth) & (truth < high)).mean()
    assert 0.88 <= covered <= 0.98


def test_samples_are_drawn_and_not_tokens():
    """Many tokens of few samples that disagree leave the correlation open."""
    x = np.linspace(0, 1, 400)
    low, high = bootstrap_interval(sums_of([(x, x), (x, -x), (x, x)])[None], 500, seed=0)
    assert low[0] == pytest.approx(-1)
    assert high[0] == pytest.approx(1)


def test_a_wider_level_gives_a_wider_interval_around_the_correlation():
    samples = drawn(np.random.default_rng(8), 20)
    sums = sums_of(samples)[None]
    wide, narrow = (bootstrap_interval(sums, 500, seed=0, level=level) for level in (0.99, 0.5))
    assert wide[0] < narrow[0] < correlation(samples) < narrow[1] < wide[1]


def test_a_neuron_that_never_varies_has_no_interval_and_spoils_no_others():
    flat = sums_of([(np.zeros(5), np.arange(5.0))] * 4)
    fine = sums_of(drawn(np.random.default_rng(0), 4))
    low, high = bootstrap_interval(np.stack([flat, fine]), 200, seed=0)
    assert np.isnan([low[0], high[0]]).all()
    assert np.isfinite([low[1], high[1]]).all()


def test_one_samples_large_numbers_do_not_swallow_anothers_small_ones() -> None:
    rng = np.random.default_rng(5)
    real = np.concatenate([np.full(20_000, 6e4), rng.normal(0, 1e-2, 300)])
    predicted = np.concatenate([np.zeros(20_000), real[20_000:] + rng.normal(0, 1e-2, 300)])
    sums = sample_sums(real, predicted, np.array([0, 20_000, 20_000, 20_300]))
    assert sums[1].tolist() == [0] * 6
    expected = np.corrcoef(real[20_000:], predicted[20_000:])[0, 1]
    np.testing.assert_allclose(pearson(sums[2]), expected, rtol=1e-6)
