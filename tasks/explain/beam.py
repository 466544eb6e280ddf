"""Search the formula that best predicts a neuron, by beam search.

Follows Mu and Andreas (2020), with graded terms and correlation instead of overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from neuron_atlas.tasks.concepts.formula import KINDS, STRENGTHS, Atom, Term
from neuron_atlas.tasks.explain.candidates import Candidates

_DECIMALS = 9
"""Objectives that agree to this many decimals are a tie, which the simpler candidate wins."""

_OPTIONS = 8
"""Ways to continue that are looked at, of each kind."""


@dataclass(frozen=True)
class _State:
    """A formula: its terms, its prediction y float64 [tokens], and the prediction without its last
    term, with the tokens of that term. length: number of atoms."""

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
    n = len(x)
    states = [_State((), np.zeros(n), np.zeros(n), np.zeros(n, bool), 0, 0.0)]
    found: list[tuple[tuple[Term, ...], float]] = []
    best = 0.0
    while states and search.varies:
        grown = [one for one in search.grow(states, max_length, beam) if one.objective > best]
        if not grown:
            break
        best = grown[0].objective
        found.append((grown[0].terms, best + penalty * grown[0].length))
        states = grown
    return found


class _Search:
    def __init__(
        self, x: np.ndarray, weights: np.ndarray, candidates: Candidates, penalty: float
    ) -> None:
        self._w = weights / max(weights.sum(), 1e-300)
        self._x = x - self._w @ x if len(x) else x
        self._variance = float(self._w @ self._x**2)
        self._candidates = candidates
        self._masks = candidates.masks
        self._singles = candidates.masks[: len(candidates.atoms)]
        self._costs = np.array([len(atoms) for atoms in candidates.members], np.int64)
        kinds = [atom.kind for atom in candidates.atoms]
        self._is_kind = {
            kind: np.array([one == kind for one in kinds], bool)
            for role in KINDS.values()
            for kind in role
        }
        self._is_role = {
            role: np.array([one == role for one in candidates.roles], bool) for role in KINDS
        }
        self._rivals = _find_rivals(candidates)
        self._penalty = penalty
        scale = float(np.abs(x).max(initial=0))
        self.varies = self._variance > 1e-12 * max(scale, 1e-12) ** 2 and len(self._costs) > 0

    def grow(self, states: list[_State], max_length: int, beam: int) -> list[_State]:
        """Return the best formulas that have one term, or one atom, more than one of `states`."""
        options = [*self._added(states, max_length), *self._refined(states, max_length)]
        options.sort(key=lambda option: (-option[0], option[1:]))
        grown: list[_State] = []
        for objective, number, kind, candidate, level in options:
            # Formulas with the same objective and length mostly predict the same.
            if any(abs(objective - one.objective) < 10**-_DECIMALS for one in grown):
                continue
            state = states[number]
            if kind == 0:
                grown.append(self._with_term(state, candidate, level, objective))
            else:
                grown.append(self._with_atom(state, candidate, kind == 2, objective))
            if len(grown) == beam:
                break
        return grown

    def _added(
        self, states: list[_State], max_length: int
    ) -> Iterator[tuple[float, int, int, int, int]]:
        sums, columns = [], []
        for state in states:
            sums.append(self._sums(state.y))
            for strength in STRENGTHS:
                new = np.maximum(state.y, strength)
                columns += self._changes(state.y, new)
        changes = (self._masks @ np.stack(columns, axis=1)).reshape(
            len(self._costs), len(states), len(STRENGTHS), 3
        )
        lengths = np.array([state.length for state in states])
        length = self._costs[:, None] + lengths
        value = self._correlate(changes + np.array(sums)[None, :, None, :])
        value = value - self._penalty * length[..., None]
        value[length > max_length] = -np.inf
        for its, state in enumerate(states):
            named = (atom for term in state.terms for atom in term.required)
            value[[one for atom in named for one in self._rivals.get(atom, ())], its] = -np.inf
        flat = np.round(value.ravel(), _DECIMALS)
        for place in _largest(flat):
            candidate, number, level = np.unravel_index(place, value.shape)
            if np.isfinite(flat[place]):
                yield float(flat[place]), int(number), 0, int(candidate), int(level)

    def _refined(
        self, states: list[_State], max_length: int
    ) -> Iterator[tuple[float, int, int, int, int]]:
        for number, state in enumerate(states):
            if not state.terms or state.length >= max_length:
                continue
            term = state.terms[-1]
            removed = self._changes(state.y, np.where(state.last, state.before, state.y))
            stacked = np.stack(removed, axis=1)
            inside = self._singles @ stacked
            sums = self._sums(state.y)
            # An image region may show several concepts; nothing else holds twice.
            taken = {atom.kind for atom in term.required} - {"shows"}
            required_too = self._is_role[term.role].copy()
            for kind in taken:
                required_too &= ~self._is_kind[kind]
            named = (atom for other in state.terms[:-1] for atom in other.required)
            rivals = [one for atom in named for one in self._rivals.get(atom, ())]
            required_too[[one for one in rivals if one < len(required_too)]] = False
            excluded_too = required_too & ~self._is_kind["word"]
            for atom in term.excluded:
                excluded_too &= ~self._is_kind[atom.kind]
            # Without the tokens of an atom (1), or with them alone (2).
            for option, change, is_allowed in (
                (1, inside, excluded_too),
                (2, stacked.sum(0) - inside, required_too),
            ):
                value = self._correlate(change + sums) - self._penalty * (state.length + 1)
                value[~is_allowed] = -np.inf
                flat = np.round(value, _DECIMALS)
                for place in _largest(flat):
                    if np.isfinite(flat[place]):
                        yield float(flat[place]), number, option, int(place), 0

    def _with_term(self, state: _State, candidate: int, level: int, objective: float) -> _State:
        atoms = self._candidates.members[candidate]
        mask = _row(self._masks, candidate)
        term = Term(
            self._candidates.roles[atoms[0]],
            tuple(self._candidates.atoms[atom] for atom in atoms),
            strength=level,
        )
        y = np.where(mask, np.maximum(state.y, STRENGTHS[level]), state.y)
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

    def _sums(self, y: np.ndarray) -> tuple[float, float, float]:
        return float(self._w @ y), float(self._w @ (y * y)), float(self._w @ (self._x * y))

    def _changes(self, old: np.ndarray, new: np.ndarray) -> list[np.ndarray]:
        first = self._w * (new - old)
        return [first, self._w * (new * new - old * old), self._x * first]

    def _correlate(self, sums: np.ndarray) -> np.ndarray:
        """Return correlations [...] from sums [..., 3] of y, yy and xy; -inf if y is constant."""
        spread = sums[..., 1] - sums[..., 0] ** 2
        is_constant = spread <= 1e-12
        r = sums[..., 2] / np.sqrt(np.where(is_constant, 1, spread) * self._variance)
        return np.where(is_constant, -np.inf, r)


def _find_rivals(candidates: Candidates) -> dict[Atom, list[int]]:
    """Return, by atom, the candidates that a formula with a term of this atom does not add.

    How far a patch shows a concept is a share, so a term of its edge, or of the patches next to it,
    would mostly repeat the concept.
    """
    showing: dict[str, list[int]] = {}
    around: dict[str, list[int]] = {}
    for number, atoms in enumerate(candidates.members):
        for atom in (candidates.atoms[one] for one in atoms):
            found = {"shows": showing, "edge": around, "near": around}.get(atom.kind)
            if found is not None:
                found.setdefault(atom.names[0], []).append(number)
    rivals = {Atom("shows", (name,)): its for name, its in around.items()}
    for name in around:
        rivals |= {Atom(kind, (name,)): showing.get(name, []) for kind in ("edge", "near")}
    return rivals


def _largest(values: np.ndarray, count: int = _OPTIONS) -> list[int]:
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
