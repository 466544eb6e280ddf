"""How many of the neurons that are called are called wrongly."""

from __future__ import annotations

import numpy as np


def q_values(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg q float64 for p float64, of the same shape; NaN (not tested) stays NaN.

    To call every test with q <= a keeps the expected share of wrong calls at a: q(i) is the
    smallest p(j) m / j over j >= i, of m tests in ascending order (Benjamini and Hochberg, J. R.
    Stat. Soc. B 57, 1995). A neuron without enough high tokens is not among the m; that is decided
    by counts that say nothing of the difference (Bourgon, Gentleman and Huber, PNAS 107, 2010).
    """
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * len(order) / np.arange(1, len(order) + 1)
    q = np.full(p.shape, np.nan)
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1.0)
    return q
