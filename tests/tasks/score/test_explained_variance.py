import numpy as np
import pytest

from neuron_atlas.tasks.score.explained_variance import calibrate, explained_variance
from tests.tasks.score.pooled import sums_of

# By hand: the mean of the real activations is 3, of their squares 11.
REAL = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
PREDICTED = np.array([1.0, 2.0, 2.0, 4.0, 4.0])


def pooled(x, y):
    real, cross = sums_of([(np.asarray(x, float), np.asarray(y, float))])
    return real[:, 0], cross[:, 0]


def explained(x, y, calibration_x, calibration_y) -> tuple[float, float]:
    line = calibrate(*pooled(calibration_x, calibration_y))
    centered, uncentered = explained_variance(*pooled(x, y), *line)
    return float(centered), float(uncentered)


def test_centered_and_uncentered_by_hand():
    """Calibrated on a line of slope 1 through 0, the squared errors are 0, 0, 1, 0, 1."""
    centered, uncentered = explained(REAL, PREDICTED, [0, 1], [0, 1])
    assert centered == pytest.approx(1 - 2 / 10)
    assert uncentered == pytest.approx(1 - 2 / 55)


def test_whoever_predicts_the_mean_explains_nothing_about_it_but_much_about_zero():
    """A slope of nearly 0 leaves the calibration's mean, which here is that of the activations."""
    centered, uncentered = explained(REAL, PREDICTED, [3, 3, 3], [0, 1, 2])
    assert centered == pytest.approx(0)
    assert uncentered == pytest.approx(1 - 10 / 55)


def test_whoever_is_off_by_a_level_is_worse_than_the_mean_and_still_looks_good_about_zero():
    """The calibration's mean is 4 where that of the activations is 3: to their squared deviations,
    10, it adds 5. R^2 is 1 - 15 / 10; the measure of Bills et al. is 1 - (15 / 5) / (55 / 5)."""
    centered, uncentered = explained(REAL, PREDICTED, [4, 4, 4], [0, 1, 2])
    assert centered == pytest.approx(-0.5)
    assert uncentered == pytest.approx(1 - 3 / 11)


def test_a_prediction_in_other_units_is_worth_as_much_once_calibrated():
    calibrated = explained(REAL, 10 * PREDICTED - 7, REAL, 10 * PREDICTED - 7)
    assert calibrated == pytest.approx(explained(REAL, PREDICTED, REAL, PREDICTED))
    uncalibrated = explained(REAL, 10 * PREDICTED - 7, [0, 1], [0, 1])
    assert uncalibrated[0] < -50


def test_fitted_on_the_scored_samples_it_is_the_squared_correlation():
    r = np.corrcoef(REAL, PREDICTED)[0, 1]
    in_sample, _ = explained(REAL, PREDICTED, REAL, PREDICTED)
    assert in_sample == pytest.approx(r**2)
    held_out, _ = explained(REAL, PREDICTED, [0, 1], [0, 1])
    assert held_out < in_sample


def test_an_explanation_that_says_the_opposite_explains_nothing():
    """In-sample calibration would turn r = -1 into an explained variance of 1."""
    line = calibrate(*pooled(REAL, -REAL))
    assert [float(part) for part in line] == pytest.approx([3, 0])
    centered, _ = explained(REAL, -REAL, REAL, -REAL)
    assert centered == pytest.approx(0)


def test_the_line_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    y = rng.normal(size=50)
    x = 3 * y + 2 + rng.normal(size=50)
    slope, intercept = np.polyfit(y, x, 1)
    assert [float(part) for part in calibrate(*pooled(x, y))] == pytest.approx([intercept, slope])


def test_what_cannot_be_calibrated_or_does_not_vary_is_undefined():
    assert np.isnan(explained(REAL, PREDICTED, REAL, [2] * 5)).all()
    assert np.isnan(explained(REAL, PREDICTED, [], [])).all()
    assert np.isnan(explained([4] * 5, PREDICTED, REAL, PREDICTED)).all()
