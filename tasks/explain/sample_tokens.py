"""The tokens of a neuron's samples, with its activations and the predictions of formulas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from neuron_atlas.tasks.concepts.formula import STRENGTHS, Atom, Role, Term
from neuron_atlas.tasks.concepts.predict import TokenFacts
from neuron_atlas.tasks.evidence.evidence import Evidence

ROLES: tuple[Role, Role] = ("visual", "text")
BOTH_ROLES = ("multi-modal", "unknown")
"""Types of neurons that may respond to either role."""
_DECIMALS = 9
"""Formulas whose worth agrees to this many decimals are a tie, which the first one wins."""


class SampleTokens:
    """All visual tokens of a neuron's samples, and then all text tokens.

    x: float64 [tokens], activations. weights: float64 [tokens]. n_visual: number of visual tokens.
    Raises ValueError if activations do not fit the tokens of their sample.
    """

    def __init__(self, evidence: Evidence, facts: TokenFacts) -> None:
        records = (*evidence.exemplars, *evidence.random)
        self._facts = facts
        self._ids = [one.sample_id for one in records]
        traces = [[getattr(one, role) for one in records] for role in ROLES]
        lengths = [[len(trace) for trace in part] for part in traces]
        for role, its in zip(ROLES, lengths, strict=True):
            is_used = evidence.type in (role, *BOTH_ROLES)
            if is_used and its != facts.lengths(role, self._ids):
                raise ValueError("a sample's activations and its tokens differ in number")
        self.x = np.concatenate([np.zeros(0), *traces[0], *traces[1]])
        # Exemplars and random samples weigh the same, however many there are of each.
        shares = [1 / len(kind) for kind in (evidence.exemplars, evidence.random) for _ in kind]
        self.weights = np.repeat([*shares, *shares], [*lengths[0], *lengths[1]])
        self.n_visual = sum(lengths[0])
        self._w = self.weights / max(self.weights.sum(), 1e-300)
        self._centered = self.x - self._w @ self.x
        self._wx = self._w * self._centered
        self._variance = float(self._wx @ self._centered)
        self._truths: dict[Role, dict[Atom, np.ndarray]] = {role: {} for role in ROLES}
        self._held: dict[tuple[Role, tuple[Atom, ...], tuple[Atom, ...]], np.ndarray] = {}

    @property
    def varies(self) -> bool:
        """Whether a prediction can correlate with the activations."""
        return bool(len(self.x)) and float(np.ptp(self.x)) > 1e-9

    def load(self, terms: Iterable[Term]) -> None:
        """Find where the atoms of some terms hold, all together, which is faster."""
        atoms: dict[Role, set[Atom]] = {role: set() for role in ROLES}
        for term in terms:
            atoms[term.role].update(term.required, term.excluded)
        for role, its in atoms.items():
            if missing := its - self._truths[role].keys():
                self._truths[role] |= self._facts.truths(role, missing, self._ids)

    def worth(self, terms: Sequence[Term], penalty: float) -> float:
        """Return the weighted correlation of a formula's prediction, minus a penalty for each atom;
        0 for the correlation if a side is constant.

        The search takes a patch to show a concept or not; here coverage counts in shares.
        """
        length = sum(len((*term.required, *term.excluded)) for term in terms)
        mean = yy = xy = 0.0
        for role in {term.role for term in terms}:
            part, y = self._part(role), self._predict(role, terms)
            wy = self._w[part] * y
            mean, yy, xy = mean + wy.sum(), yy + wy @ y, xy + self._wx[part] @ y
        product = self._variance * (yy - mean**2)
        r = xy / product**0.5 if product > 1e-24 else 0.0
        return round(r - penalty * length, _DECIMALS)

    def correlations(self, terms: Sequence[Term]) -> dict[Role, float]:
        """Return the correlation of a formula's prediction with the activations in each role that
        it has, over all tokens alike; 0 if a side is constant."""
        found: dict[Role, float] = {}
        for role in (one for one in ROLES if any(term.role == one for term in terms)):
            x, y = (
                one - one.mean() for one in (self.x[self._part(role)], self._predict(role, terms))
            )
            product = float((x @ x) * (y @ y))
            found[role] = float(x @ y) / product**0.5 if product > 0 else 0.0
        return found

    def _part(self, role: Role) -> slice:
        return slice(self.n_visual) if role == "visual" else slice(self.n_visual, None)

    def _predict(self, role: Role, terms: Sequence[Term]) -> np.ndarray:
        """Return the strongest prediction of the terms of a role, float64 [tokens of the role]."""
        parts = [STRENGTHS[one.strength] * self._holds(one) for one in terms if one.role == role]
        return parts[0] if len(parts) == 1 else np.maximum.reduce(parts)

    def _holds(self, term: Term) -> np.ndarray:
        """Return how far a term holds at the tokens of its role, float64, cached."""
        key = (term.role, term.required, term.excluded)
        if key not in self._held:
            self.load([term])
            truths = self._truths[term.role]
            parts = [truths[atom] for atom in term.required]
            parts += [1 - truths[atom] for atom in term.excluded]
            held = parts[0] if len(parts) == 1 else np.minimum.reduce(parts)
            self._held[key] = held.astype(np.float64)
        return self._held[key]
