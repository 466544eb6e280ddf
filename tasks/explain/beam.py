"""Search the formula that best predicts a neuron, by beam search.

Follows Mu and Andreas (2020), with graded terms and correlation instead of overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.sparse import csr_array

from neuron_atlas.tasks.concepts.formula import KINDS, STRENGTHS, Kind, Role, Term
from neuron_atlas.tasks.explain.candidates import Candidates
from neuron_atlas.tasks.explain.rivals import Rivals

_DECIMALS = 9
"""Objectives that agree to this many decimals are a tie, which the simpler candidate wins."""

_OPTIONS = 64
"""Ways to continue that are looked at."""


_NUMBERS = {kind: number for number, kind in enumerate(chain.from_iterable(KINDS.values()))}
_LEVELS = np.array([0.0, *sorted(STRENGTHS)])
"""Predictions that a formula can make: nothing, and the strengths from weak to strong."""


@dataclass(frozen=True)
class _State:
    """A formula by groups of tokens: its terms and its prediction, as a place in _LEVELS.

    before: the prediction without the last term. last: the groups of the last term. length: number
    of atoms.
    """

    terms: tuple[Term, ...]
    y: np.ndarray
    before: np.ndarray
    last: np.ndarray
    length: int
    objective: float


def search_formulas(
    x: np.ndarray,
    weights: np.ndarray,
    candidates: Candidates,
    max_length: int,
    penalty: float,
    beam: int,
) -> list[tuple[tuple[Term, ...], float]]:
    """Return the best terms of each length, shortest first, with their weighted correlation.

    x: float64 [tokens], activations. weights: float64 [tokens]. A formula is worth its correlation
    minus `penalty` for every atom; the list ends where no longer formula is worth more.
    """
    search = _Search(x, weights, candidates, penalty)
    nothing = np.zeros(candidates.masks.shape[1], np.int64)
    states = [_State((), nothing, nothing, nothing > 0, 0, 0.0)]
    found: list[tuple[tuple[Term, ...], float]] = []
    best = 0.0
    while states and search.varies:
        grown = search.grow(states, max_length, beam, best)
        if not grown:
            break
        best = grown[0].objective
        found.append((grown[0].terms, best + penalty * grown[0].length))
        states = grown
    return found


class _Search:
    """Sums over groups of tokens decide: no candidate holds for a part of a group."""

    def __init__(
        self, x: np.ndarray, weights: np.ndarray, candidates: Candidates, penalty: float
    ) -> None:
        w = weights / max(weights.sum(), 1e-300)
        centered = x - w @ x if len(x) else x
        self._variance = float(w @ centered**2)
        scale = float(np.abs(x).max(initial=0))
        n_groups = candidates.masks.shape[1]
        self._w = np.bincount(candidates.groups, w, n_groups)
        self._wx = np.bincount(candidates.groups, w * centered, n_groups)
        self._candidates = candidates
        self._masks = candidates.masks
        self._singles = candidates.masks[: len(candidates.atoms)]
        self._costs = np.array([len(atoms) for atoms in candidates.members], np.int64)
        self._kinds = np.array([_NUMBERS[atom.kind] for atom in candidates.atoms], np.int64)
        self._rivals = Rivals(candidates)
        self._penalty = penalty
        self.varies = self._variance > 1e-12 * max(scale, 1e-12) ** 2 and len(self._costs) > 0

    def grow(
        self, states: Sequence[_State], max_length: int, beam: int, least: float
    ) -> list[_State]:
        """Return the best formulas that have one term, or one atom, more than one of `states`, and
        whose objective is above `least`."""
        y = np.stack([state.y for state in states])
        values = _LEVELS[y]
        sums = np.stack([values @ self._w, (values * values) @ self._w, values @ self._wx], axis=-1)
        added = self._added(states, y, sums, max_length).reshape(len(states), -1)
        refined = self._refined(states, values, sums, max_length).reshape(len(states), -1)
        objectives = np.concatenate([added, refined], axis=1)
        options = np.flatnonzero(objectives > least)
        worths = np.round(objectives.ravel()[options], _DECIMALS)
        n_added, n_atoms = added.shape[1], len(self._candidates.atoms)
        grown: list[_State] = []
        for option in _largest(worths, _OPTIONS):
            number, place = divmod(int(options[option]), objectives.shape[1])
            state, objective = states[number], float(worths[option])
            if objective <= least:
                break
            # Formulas with the same objective and length mostly predict the same.
            if grown and abs(objective - grown[-1].objective) < 10**-_DECIMALS:
                continue
            if place < n_added:
                candidate, strength = divmod(place, len(STRENGTHS))
                grown.append(self._with_term(state, candidate, strength, objective))
            else:
                is_required, atom = divmod(place - n_added, n_atoms)
                grown.append(self._with_atom(state, atom, bool(is_required), objective))
            if len(grown) == beam:
                break
        return grown

    def _added(
        self, states: Sequence[_State], y: np.ndarray, sums: np.ndarray, max_length: int
    ) -> np.ndarray:
        """Return objectives with a further term, float64 [states, candidates, strengths]."""
        n_states, n_groups = y.shape
        is_level = y[:, None, :] == np.arange(len(STRENGTHS))[:, None]
        columns = np.concatenate([is_level * self._w, is_level * self._wx], axis=1)
        held = self._masks @ columns.reshape(-1, n_groups).T
        changes = held.reshape(len(self._costs) * n_states, -1) @ _CHANGES
        changes = changes.reshape(len(self._costs), n_states, 3, len(STRENGTHS))
        value = self._correlate(changes + sums[..., None])
        lengths = self._costs[:, None] + np.array([state.length for state in states])
        value -= self._penalty * lengths[..., None]
        value[lengths > max_length] = -np.inf
        for number, state in enumerate(states):
            value[self._rivals.of(state.terms), number] = -np.inf
        return value.transpose(1, 0, 2)

    def _refined(
        self, states: Sequence[_State], values: np.ndarray, sums: np.ndarray, max_length: int
    ) -> np.ndarray:
        """Return objectives with a further atom of the last term, float64 [states, 2, atoms]: the
        first without the atom's tokens, the second with them alone."""
        allowed = [self._allowed(state, max_length) for state in states]
        if not any(one.any() for one in allowed):
            return np.full((len(states), 2, len(self._candidates.atoms)), -np.inf)
        less = np.stack([np.where(one.last, _LEVELS[one.before], _LEVELS[one.y]) for one in states])
        step = less - values
        square = less * less - values * values
        removed = np.stack([step * self._w, square * self._w, step * self._wx], axis=1)
        inside = self._singles @ removed.reshape(-1, removed.shape[2]).T
        inside = inside.reshape(-1, len(states), 3).transpose(1, 0, 2)
        changes = np.stack([inside, removed.sum(2)[:, None] - inside], axis=1)
        value = self._correlate((changes + sums[:, None, None]).transpose(0, 1, 3, 2))
        value -= self._penalty * (np.array([state.length for state in states]) + 1)[:, None, None]
        value[~np.stack(allowed)] = -np.inf
        return value

    def _allowed(self, state: _State, max_length: int) -> np.ndarray:
        """Return which atoms the last term can exclude, and can require: bool [2, atoms]."""
        allowed = np.zeros((2, len(self._candidates.atoms)), bool)
        if not state.terms or state.length >= max_length:
            return allowed
        term = state.terms[-1]
        # An image region may show several concepts; nothing else holds twice.
        taken: set[Kind] = {atom.kind for atom in term.required if atom.kind != "shows"}
        excluded: set[Kind] = {"word", *(atom.kind for atom in term.excluded)}
        allowed[0] = self._of_kinds(term.role, taken | excluded)
        allowed[1] = self._of_kinds(term.role, taken)
        allowed[:, self._rivals.of(state.terms[:-1], singles=True)] = False
        return allowed

    def _of_kinds(self, role: Role, but: set[Kind]) -> np.ndarray:
        """Return which atoms are of a role and of none of some kinds, bool [atoms]."""
        is_of = np.zeros(len(_NUMBERS), bool)
        is_of[[_NUMBERS[kind] for kind in KINDS[role] if kind not in but]] = True
        return is_of[self._kinds]

    def _with_term(self, state: _State, candidate: int, strength: int, objective: float) -> _State:
        atoms = self._candidates.members[candidate]
        mask = _row(self._masks, candidate)
        term = Term(
            self._candidates.roles[atoms[0]],
            tuple(self._candidates.atoms[atom] for atom in atoms),
            strength=strength,
        )
        y = np.where(mask, np.maximum(state.y, len(STRENGTHS) - strength), state.y)
        length = state.length + len(atoms)
        return _State((*state.terms, term), y, state.y, mask, length, objective)

    def _with_atom(self, state: _State, atom: int, is_required: bool, objective: float) -> _State:
        mask = _row(self._masks, atom)
        last = state.last & (mask if is_required else ~mask)
        old, named = state.terms[-1], (self._candidates.atoms[atom],)
        term = Term(
            old.role,
            old.required + named if is_required else old.required,
            old.excluded if is_required else old.excluded + named,
            old.strength,
        )
        y = np.where(state.last & ~last, state.before, state.y)
        return _State((*state.terms[:-1], term), y, state.before, last, state.length + 1, objective)

    def _correlate(self, sums: np.ndarray) -> np.ndarray:
        """Return correlations [..., n] from sums [..., 3, n] of y, yy and xy; -inf if y is
        constant."""
        spread = sums[..., 1, :] - sums[..., 0, :] ** 2
        is_constant = spread <= 1e-12
        r = sums[..., 2, :] / np.sqrt(np.where(is_constant, 1, spread) * self._variance)
        r[is_constant] = -np.inf
        return r


def _changes() -> np.ndarray:
    """Return how sums of y, yy and xy change with a term of each strength: float64
    [2 * levels, 3 * strengths], to multiply sums of the weights, and of weighted x, by level."""
    old = _LEVELS[:-1, None]
    is_more = np.array(STRENGTHS) > old
    step, square = (is_more * (np.array(STRENGTHS) ** n - old**n) for n in (1, 2))
    nothing = np.zeros_like(step)
    return np.block([[step, square, nothing], [nothing, nothing, step]])


_CHANGES = _changes()


def _largest(values: np.ndarray, count: int) -> list[int]:
    """Return the positions of the largest values, largest first, by position on a tie."""
    if len(values) > count:
        # All that tie with the last one take part, so that position decides between them.
        places = np.flatnonzero(values >= np.partition(values, -count)[-count])
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")][:count].tolist()


def _row(masks: csr_array, row: int) -> np.ndarray:
    mask = np.zeros(masks.shape[1], bool)
    mask[masks.indices[masks.indptr[row] : masks.indptr[row + 1]]] = True
    return mask
