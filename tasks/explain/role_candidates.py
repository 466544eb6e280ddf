"""Atoms, and pairs of atoms, of one role that a neuron's samples offer to a formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.concepts.formula import Atom


@dataclass(frozen=True)
class RoleCandidates:
    """Conditions on the tokens of one role.

    atoms: the single atoms. pairs: positions of the atoms of each pair. rows: groups that each atom
    holds for, and then each pair, int64 [its groups]. groups: group of each token of the role,
    int64 [tokens]; no condition holds for a part of a group. n_groups: their number.
    """

    atoms: Sequence[Atom]
    pairs: Sequence[tuple[int, int]]
    rows: Sequence[np.ndarray]
    groups: np.ndarray
    n_groups: int


def no_candidates(n_tokens: int) -> RoleCandidates:
    """Return a role without candidates: its tokens are one group."""
    return RoleCandidates([], [], [], np.zeros(n_tokens, np.int64), 1)
