"""Patches at the edge of a concept, and patches next to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuron_atlas.tasks.artifacts.regions import Region

SHOWS = 0.3
"""Share of a patch that a concept covers, above which the patch counts as showing it."""
TOUCHED, COVERED = 0.05, 0.95
"""Shares of a patch between which a concept covers it in part."""


def at_edge(coverage: np.ndarray) -> np.ndarray:
    """Return which patches a concept covers in part: bool, of the shape of its `coverage`."""
    return (coverage > TOUCHED) & (coverage < COVERED)


def next_to(coverage: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """Return which patches do not show a concept and touch one that does, by side or corner.

    coverage: float32 [concepts, n_visual]. Returns bool [concepts, n_visual]. Patches of different
    regions never touch.
    """
    shown = coverage > SHOWS
    touches = np.zeros_like(shown)
    start = 0
    for region in regions:
        stop = start + region.tokens
        grid = shown[:, start:stop].reshape(-1, region.rows, region.columns)
        rows = np.pad(grid, ((0, 0), (1, 1), (0, 0)))
        wide = np.pad(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:], ((0, 0), (0, 0), (1, 1)))
        near = wide[..., :-2] | wide[..., 1:-1] | wide[..., 2:]
        touches[:, start:stop] = near.reshape(len(shown), -1)
        start = stop
    return touches & ~shown
