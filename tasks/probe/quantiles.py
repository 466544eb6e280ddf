"""Compare a neuron's peak with its activations over the run's dataset, by histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS, bin_edges

SILENT_BELOW = float(bin_edges()[1])
"""Peaks below this are in the lowest bin, with all negative activations. They have no quantile."""


@dataclass(frozen=True)
class Quantiles:
    """Where peaks are in their neurons' distributions. All are float64 [neurons], 0 to 1.

    quantile: share of the dataset's tokens that are not above the peak, interpolated in its bin.
    low, high: the quantile's exact bounds: those of the bin. They are equal, and 1, for a peak that
    no token exceeds. NaN for a silent neuron, or without tokens.
    """

    quantile: np.ndarray
    low: np.ndarray
    high: np.ndarray


def quantiles_of(peaks: np.ndarray, counts: np.ndarray, highest: np.ndarray) -> Quantiles:
    """Return the quantiles of peaks [neurons] in the neurons' distributions over tokens.

    counts: tokens by block and bin [neurons, BLOCKS * BINS], as in the table `histograms`. highest:
    highest activation over the same tokens [neurons], as in `moments`.
    """
    counts = counts.reshape(len(counts), BLOCKS, BINS).sum(1, dtype=np.int64)
    edges = bin_edges()
    peaks = peaks.astype(np.float64)
    highest = highest.astype(np.float64)
    bins = np.clip(np.searchsorted(edges, peaks, side="right") - 1, 0, BINS - 1)
    above = counts.sum(1) - np.take_along_axis(counts.cumsum(1), bins[:, None], 1)[:, 0]
    inside = np.take_along_axis(counts, bins[:, None], 1)[:, 0]
    lower, upper = edges[bins], np.append(edges[1:], np.inf)[bins]
    upper = np.where(highest < upper, highest, upper)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.clip((upper - peaks) / (upper - lower), 0, 1)
    exceeds = ~(peaks < highest)  # Also where no token has an activation.
    above, inside = np.where(exceeds, 0, above), np.where(exceeds, 0, inside)
    share = np.where(exceeds, 0.0, share)
    total = counts.sum(1)
    known = (peaks >= SILENT_BELOW) & (total > 0)
    total = np.maximum(total, 1)
    return Quantiles(
        *(
            np.where(known, 1 - tokens / total, np.nan)
            for tokens in (above + share * inside, above + inside, above)
        )
    )


def chance(quantile: np.ndarray, n_tokens: int) -> np.ndarray:
    """Return the chance that the highest of `n_tokens` tokens is above the quantile.

    It makes roles with different numbers of tokens comparable. Tokens of one sample are not
    independent, so it serves as an order and is no p-value.
    """
    return -np.expm1(n_tokens * np.log(np.clip(quantile, 1e-300, 1)))
