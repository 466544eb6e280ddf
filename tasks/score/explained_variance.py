"""Compute the variance of activations that calibrated predictions explain, from pooled sums."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.score.correlation import has_variance


def calibrate(real: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit activation = intercept + slope x prediction by least squares; return both, [...] each.

    real, cross: sums [3, ...] of the calibration samples (see correlation.py), never of the scored
    ones. Fitted on the scored samples, the explained variance would be the squared correlation.
    That is the same for an explanation and its opposite. Bills et al. (2023) also fit on a separate
    split. For the same reason, a negative slope is set to 0. NaN if the predictions are constant.
    """
    n, x, _ = real
    y, yy, xy = cross
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.maximum((n * xy - x * y) / (n * yy - y * y), 0)
        slope = np.where(has_variance(n, y, yy), slope, np.nan)
        return (x - slope * y) / n, slope


def explained_variance(
    real: np.ndarray, cross: np.ndarray, intercept: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the centered and uncentered explained variance [...] of intercept + slope x
    prediction.

    Centered: 1 - sum (x - p)^2 / sum (x - mean x)^2, the coefficient of determination; it is 0 if
    all predictions are the mean. Uncentered: 1 - mean (x - p)^2 / mean x^2, as Bills et al. (2023)
    report it; it is 0 if all predictions are 0, and above 0 for the mean. Both are at most 1, and
    negative for worse predictions than these. NaN if the activations are constant or calibration
    was undefined.
    """
    n, x, xx = real
    y, yy, xy = cross
    residual = (
        xx
        + n * intercept**2
        + slope**2 * yy
        - 2 * intercept * x
        - 2 * slope * xy
        + 2 * intercept * slope * y
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        centered = 1 - residual / (xx - x * x / n)
        uncentered = 1 - residual / xx
    defined = has_variance(n, x, xx)
    return np.where(defined, centered, np.nan), np.where(defined, uncentered, np.nan)
