"""Pool sums of samples over explanations and over roles of tokens."""

from __future__ import annotations

import numpy as np


def pool(sums: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Add sums [..., samples] over each explanation's samples: [..., groups]; 0 without samples.

    group: int64 [samples], the explanation of each sample, ascending.
    """
    pooled = np.zeros((*sums.shape[:-1], groups))
    present, starts = np.unique(group, return_index=True)
    if len(present):
        pooled[..., present] = np.add.reduceat(sums, starts, axis=-1)
    return pooled


def by_tokens(sums: np.ndarray) -> np.ndarray:
    """Turn sums [kinds, 2 roles, ...] into those of all, visual and text tokens [kinds, 3, ...]."""
    return np.concatenate([sums.sum(1, keepdims=True), sums], axis=1)
