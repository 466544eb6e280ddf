"""How much of the activations' variance calibrated predictions explain, from pooled sums."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.score.correlation import varies


def calibrate(real: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intercept and slope [...] of activation = intercept + slope x prediction, least squares.

    real, cross: sums [3, ...] of the calibration samples (see correlation.py), never of those that
    are scored: fitted on these, the explained variance is the squared correlation and cannot tell
    an explanation from its opposite (Bills et al. 2023 fit on a split apart). For the same reason a
    slope below 0 is taken as 0. NaN where the predictions do not vary.
    """
    n, x, _ = real
    y, yy, xy = cross
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.maximum((n * xy - x * y) / (n * yy - y * y), 0)
        slope = np.where(varies(n, y, yy), slope, np.nan)
        return (x - slope * y) / n, slope


def explained_variance(
    real: np.ndarray, cross: np.ndarray, intercept: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Explained variance [...] about the mean and about 0, of intercept + slope x prediction.

    Centred: 1 - sum (x - p)^2 / sum (x - mean x)^2, the coefficient of determination; 0 for
    whoever predicts the mean everywhere. Uncentred: 1 - mean (x - p)^2 / mean x^2, as Bills et al.
    (2023) report it; above 0 for the mean too. Both are 1 at most and below 0 for predictions
    worse than that; NaN where the activations do not vary or calibration was undefined.
    """
    n, x, xx = real
    y, yy, xy = cross
    missed = (
        xx
        + n * intercept**2
        + slope**2 * yy
        - 2 * intercept * x
        - 2 * slope * xy
        + 2 * intercept * slope * y
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = 1 - missed / (xx - x * x / n)
        uncentred = 1 - missed / xx
    defined = varies(n, x, xx)
    return np.where(defined, centred, np.nan), np.where(defined, uncentred, np.nan)
