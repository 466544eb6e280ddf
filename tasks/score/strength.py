"""Read how strongly each sample as a whole is predicted to activate a neuron."""

from __future__ import annotations

import numpy as np

from neuron_atlas.tasks.score.align import Aligned


def predicted_strengths(aligned: Aligned, claim: str) -> np.ndarray:
    """Return the predicted strength [3 tokens, samples]; NaN without tokens or a prediction.

    It is the predicted peak; over all tokens, the rating if all of the explanation's samples have
    one."""
    predicted = aligned.predicted[claim]
    peaks = np.full((2, len(aligned.group)), np.nan)
    for role, values in enumerate((predicted.visual, predicted.text)):
        offsets = aligned.offsets[role]
        has_tokens = np.diff(offsets) > 0
        if has_tokens.any():
            wide = values.astype(np.float32)
            peaks[role, has_tokens] = np.maximum.reduceat(wide, offsets[:-1][has_tokens])
    is_rated = np.isfinite(predicted.detected)
    all_rated = np.ones(len(aligned.group), dtype=bool)
    for group in np.unique(aligned.group[~is_rated]):
        all_rated[aligned.group == group] = False
    of_all_tokens = np.where(all_rated, predicted.detected, np.fmax(*peaks))
    return np.where(predicted.is_made, np.stack([of_all_tokens, *peaks]), np.nan)
