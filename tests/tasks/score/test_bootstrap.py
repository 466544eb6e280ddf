import numpy as np
import pytest

from neuron_atlas.tasks.score.bootstrap import bootstrap, draw_weights, interval
from neuron_atlas.tasks.score.correlation import pearson
from tests.tasks.score.pooled import Samples, concatenated, correlation, drawn, sums_of


def measured(sums: np.ndarray) -> np.ndarray:
    """The correlation of the first prediction, and its margin over the second."""
    own = pearson(sums[:3], sums[3:6])
    return np.stack([own, own - pearson(sums[:3], sums[6:9])])


def bounds(
    neurons: list[Samples], resamples: int = 400, seed: int = 11, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [neurons] of the correlation."""
    sums = np.stack([np.concatenate(sums_of(samples)) for samples in neurons], axis=1)
    low, high = bootstrap(sums, lambda s: pearson(s[:3], s[3:])[None], resamples, seed, level)
    return low[0], high[0]


def test_the_interval_is_that_of_drawing_samples_again_one_by_one():
    samples = drawn(np.random.default_rng(5), 9)
    (low,), (high,) = bounds([samples])
    again = []
    for times in draw_weights(9, 400, seed=11).T.astype(int):
        picked = [samples[place] for place in np.repeat(np.arange(9), times)]
        again.append(np.corrcoef(*concatenated(picked))[0, 1])
    assert [low, high] == pytest.approx(np.percentile(again, [2.5, 97.5]), abs=1e-9)


def test_a_draw_has_as_many_samples_as_there_are():
    weights = draw_weights(7, 300, seed=1)
    assert set(weights.sum(0)) == {7}
    assert weights.mean(1) == pytest.approx(np.ones(7), abs=0.2)


def test_the_interval_is_the_same_again_and_for_each_neuron_as_if_alone():
    rng = np.random.default_rng(1)
    # So many that they are drawn in several blocks.
    neurons = [drawn(rng, 7, strength) for strength in np.linspace(-2, 2, 900)]
    together = bounds(neurons, 200, seed=4)
    np.testing.assert_array_equal(together, bounds(neurons, 200, seed=4))
    for place in (0, 300, 899):
        alone = np.ravel(bounds([neurons[place]], 200, seed=4))
        assert alone == pytest.approx([side[place] for side in together], abs=1e-12)
    assert (np.stack(bounds(neurons, 200, seed=5)) != np.stack(together)).any()


def test_a_95_percent_interval_covers_the_truth_about_as_often():
    """Of 300 experiments with 40 samples each; fewer samples make percentile intervals narrow."""
    rng = np.random.default_rng(2)
    experiments = []
    for _ in range(300):
        x = rng.normal(size=(40, 5))
        experiments.append(list(zip(x, x + rng.normal(size=x.shape), strict=True)))
    low, high = bounds(experiments, 500, seed=0)
    truth = 1 / np.sqrt(2)
    assert 0.9 <= ((low < truth) & (truth < high)).mean() <= 0.98


def sparse(rng: np.random.Generator, samples: int) -> Samples:
    """Half exemplars, half random samples; clumps of activation, differently strong in each."""
    pairs = []
    for place in range(samples):
        fires = np.zeros(200)
        if rng.random() < (0.95 if place < samples // 2 else 0.3):
            size = rng.integers(5, 40)
            start = rng.integers(0, 200 - size)
            fires[start : start + size] = 1
        real = fires * rng.gamma(3, 1) + 0.5 * rng.normal(size=200)
        predicted = fires * (rng.random(200) < 0.8) + (rng.random(200) < 0.02)
        pairs.append((real, predicted))
    return pairs


def test_with_twenty_samples_of_which_half_are_exemplars_it_covers_the_truth_as_well():
    rng = np.random.default_rng(0)
    truth = correlation(sparse(rng, 8000))
    low, high = bounds([sparse(rng, 20) for _ in range(300)], 500, seed=0)
    assert 0.9 <= ((low < truth) & (truth < high)).mean() <= 0.98


def test_the_interval_of_a_margin_covers_the_truth_and_gains_from_pairing():
    """Two predictions share the noise of each sample, so their difference is known better than
    either: drawing both from the same samples keeps that."""
    rng = np.random.default_rng(3)
    neurons = []
    for _ in range(300):
        x, shared = rng.normal(size=(40, 5)), rng.normal(size=(40, 5))
        own, other = (x + shared + 0.5 * rng.normal(size=x.shape) for _ in range(2))
        real, first = sums_of(list(zip(x, own, strict=True)))
        _, second = sums_of(list(zip(x, other, strict=True)))
        neurons.append(np.concatenate([real, first, second]))
    low, high = bootstrap(np.stack(neurons, axis=1), measured, 500, seed=0)
    assert 0.9 <= ((low[1] < 0) & (high[1] > 0)).mean() <= 0.98
    assert (high[1] - low[1]).mean() < 0.7 * (high[0] - low[0]).mean()


def test_samples_are_drawn_and_not_tokens():
    """Many tokens of few samples that disagree leave the correlation open."""
    x = np.linspace(0, 1, 400)
    (low,), (high,) = bounds([[(x, x), (x, -x), (x, x)]], 500, seed=0)
    assert low == pytest.approx(-1)
    assert high == pytest.approx(1)


def test_a_wider_level_gives_a_wider_interval_around_the_correlation():
    samples = drawn(np.random.default_rng(8), 20)
    wide, narrow = (np.ravel(bounds([samples], 500, 0, level)) for level in (0.99, 0.5))
    assert wide[0] < narrow[0] < correlation(samples) < narrow[1] < wide[1]


def test_a_neuron_that_never_varies_has_no_interval_and_spoils_no_others():
    flat: Samples = [(np.zeros(5), np.arange(5.0))] * 4
    low, high = bounds([flat, drawn(np.random.default_rng(0), 4)], 200, seed=0)
    assert np.isnan([low[0], high[0]]).all()
    assert np.isfinite([low[1], high[1]]).all()


def test_draws_without_a_value_are_left_out_of_the_interval():
    draws = np.random.default_rng(0).normal(size=(2, 3, 500))
    draws[0, 1, ::3] = np.nan
    draws[1, 2] = np.nan
    found = interval(draws, level=0.9)
    expected = np.nanpercentile(draws[:, :2], [5, 95], axis=-1)
    np.testing.assert_allclose(found[:, :, :2], expected)
    assert np.isnan(found[:, 1, 2]).all()


def test_strata_are_drawn_each_by_itself():
    """Two strata of equal samples each: no draw differs from another one."""
    sums = np.stack([np.repeat([1.0, 5.0], [3, 4])[None]])
    low, high = bootstrap(sums, lambda pooled: pooled, 200, seed=1, strata=(3, 0, 4))
    assert low[0, 0] == high[0, 0] == 3 * 1 + 4 * 5
    low, high = bootstrap(sums, lambda pooled: pooled, 200, seed=1)
    assert low[0, 0] < 3 * 1 + 4 * 5 < high[0, 0]
