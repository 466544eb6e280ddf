"""Control the false discovery rate over many tests."""

from __future__ import annotations

import numpy as np


def q_values(p: np.ndarray) -> np.ndarray:
    """Return the Benjamini-Hochberg q-value of each p-value, float64; NaN (not tested) stays NaN.

    Rejecting every test with q <= a keeps the false discovery rate at or below a (Benjamini and
    Hochberg, J. R. Stat. Soc. B 57, 1995). Tests with p = NaN do not count as tests. This is valid
    if the filter is independent of the test statistic under the null hypothesis (Bourgon, Gentleman
    and Huber, PNAS 107, 2010): for a neuron's type, the filter is its number of high tokens.
    """
    from scipy.stats import false_discovery_control  # Half a second to import.

    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    q[tested] = false_discovery_control(p[tested])
    return q
