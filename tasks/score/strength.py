"""Peaks of samples: how strongly each one activates a neuron, really or as predicted."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.score.align import Aligned


def predicted_strengths(aligned: Aligned, claim: str) -> np.ndarray:
    """Return the predicted strength [3 tokens, samples]; NaN without tokens or a prediction.

    It is the predicted peak; over all tokens, the rating if all of the explanation's samples have
    one."""
    predicted = aligned.predicted[claim]
    peaks = sample_peaks((predicted.visual, predicted.text), aligned.offsets)
    is_rated = np.isfinite(predicted.detected)
    all_rated = np.ones(len(aligned.group), dtype=bool)
    for group in np.unique(aligned.group[~is_rated]):
        all_rated[aligned.group == group] = False
    of_all_tokens = np.where(all_rated, predicted.detected, np.fmax(*peaks))
    return np.where(predicted.is_made, np.stack([of_all_tokens, *peaks]), np.nan)


def sample_peaks(
    values: tuple[np.ndarray, np.ndarray], offsets: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the highest value [2 roles, samples] over the visual and text tokens of each sample;
    NaN without tokens. values, offsets: as in `Aligned`."""
    peaks = np.full((2, len(offsets[0]) - 1), np.nan)
    for role, (of_role, starts) in enumerate(zip(values, offsets, strict=True)):
        has_tokens = np.diff(starts) > 0
        if has_tokens.any():
            wide = of_role.astype(np.float32)
            peaks[role, has_tokens] = np.maximum.reduceat(wide, starts[:-1][has_tokens])
    return peaks
