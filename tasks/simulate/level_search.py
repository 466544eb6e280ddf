"""Compare a formula with its variants that claim more or less, on a neuron's samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from neuron_atlas.tasks.concepts.formula import KINDS, STRENGTHS, Atom, Formula, Kind, Role, Term
from neuron_atlas.tasks.concepts.predict import TokenFacts
from neuron_atlas.tasks.evidence.evidence import Evidence

_DECIMALS = 9
_ROLES: tuple[Role, Role] = ("visual", "text")
_Y, _YY, _XY, _RANDOM_Y = range(4)


@dataclass(frozen=True)
class Moves:
    """Variants of a formula that differ in one role.

    terms: returns the terms of one variant. y: predictions, float32 [variants, tokens of the role].
    """

    role: Role
    terms: Callable[[int], tuple[Term, ...]]
    y: np.ndarray


class LevelSamples:
    """A neuron's samples: activations and facts of their tokens.

    Exemplars and random samples weigh the same, however many there are of each. Raises ValueError
    if activations do not fit the tokens of their sample.
    """

    def __init__(self, evidence: Evidence, facts: TokenFacts) -> None:
        self.ids = [one.sample_id for one in (*evidence.exemplars, *evidence.random)]
        self._facts = facts
        records = (*evidence.exemplars, *evidence.random)
        kinds = (evidence.exemplars, evidence.random)
        share = [1 / len(kind) / 2 for kind in kinds for _ in kind]
        is_random = [float(kind is evidence.random) for kind in kinds for _ in kind]
        self._columns: dict[Role, np.ndarray] = {}
        n, x_sum, xx_sum = 0.0, 0.0, 0.0
        for role in _ROLES:
            lengths = [len(getattr(one, role)) for one in records]
            if lengths != facts.lengths(role, self.ids):
                raise ValueError("a sample's activations and its tokens differ in number")
            traces = [np.zeros(0, np.float32), *(getattr(one, role) for one in records)]
            x = np.concatenate(traces).astype(np.float64)
            w = np.repeat(np.array(share, np.float64), lengths)
            self._columns[role] = np.stack([w, w * x, np.repeat(is_random, lengths)], axis=1)
            n += float(w.sum())
            x_sum += float(w @ x)
            xx_sum += float(w @ (x * x))
        self._n = max(n, 1e-300)
        self._mean = x_sum / self._n
        self._variance = xx_sum / self._n - self._mean**2
        self._truths: dict[Role, dict[Atom, np.ndarray]] = {role: {} for role in _ROLES}
        self._named: dict[Kind, tuple[list[str], np.ndarray]] = {}

    def n_tokens(self, role: Role) -> int:
        """Return the number of tokens of a role."""
        return len(self._columns[role])

    def truths(self, term: Term) -> dict[Atom, np.ndarray]:
        """Return how far the atoms of a term hold, and others, float32 [tokens of its role]."""
        known = self._truths[term.role]
        missing = {*term.required, *term.excluded} - known.keys()
        if missing:
            known |= self._facts.truths(term.role, missing, self.ids)
        return known

    def named(self, kind: Kind) -> tuple[list[str], np.ndarray]:
        """Return the names of a kind, and how far they hold, float32 [names, tokens]."""
        if kind not in self._named:
            self._named[kind] = self._facts.named(kind, self.ids)
        return self._named[kind]

    def sums(self, role: Role, y: np.ndarray) -> np.ndarray:
        """Return sums [4, predictions] of y [predictions, tokens]: weighted y, yy and xy, and y
        over the random samples alone."""
        y = y.astype(np.float64)
        columns = self._columns[role]
        first = y @ columns
        return np.stack([first[:, 0], (y * y) @ columns[:, 0], first[:, 1], first[:, 2]])

    def correlate(self, sums: np.ndarray) -> np.ndarray:
        """Return correlations [predictions] from sums over both roles; NaN if undefined."""
        y, yy, xy = (sums[kind] / self._n for kind in (_Y, _YY, _XY))
        spread = self._variance * (yy - y * y)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(spread > 1e-18, (xy - self._mean * y) / np.sqrt(spread), np.nan)


class Claim:
    """A formula with its prediction on a neuron's samples.

    mass: predicted activation over the random samples. total: over all samples, with their weights.
    correlation: with the neuron's activations; NaN if undefined.
    """

    def __init__(self, formula: Formula, samples: LevelSamples) -> None:
        self.formula = formula
        self._samples = samples
        self._values = [self._value(term, samples.truths(term)) for term in formula.terms]
        self._sums = {role: samples.sums(role, self._rest(role)[None]) for role in _ROLES}
        whole = sum(self._sums.values(), np.zeros((4, 1)))
        self.mass, self.total = float(whole[_RANDOM_Y, 0]), float(whole[_Y, 0])
        self.correlation = float(samples.correlate(whole)[0])

    def best(
        self, moves: Iterable[Moves], allows: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> Claim | None:
        """Return the allowed variant with the highest correlation; the first of equals.

        allows: gets masses and totals [variants], returns bool [variants].
        """
        best: tuple[Term, ...] | None = None
        highest = -np.inf
        for group in moves:
            if not len(group.y):
                continue
            others = [self._sums[role] for role in _ROLES if role != group.role]
            sums = self._samples.sums(group.role, group.y) + others[0]
            r = np.round(self._samples.correlate(sums), _DECIMALS)
            r = np.where(allows(sums[_RANDOM_Y], sums[_Y]) & np.isfinite(r), r, -np.inf)
            place = int(np.argmax(r))
            if r[place] > highest:
                best, highest = group.terms(place), r[place]
        return None if best is None else Claim(Formula(best), self._samples)

    def additions(self) -> Iterator[Moves]:
        """Yield the ways to claim more in the widest term: without one of its conditions, or with a
        further name."""
        place = self._widest()
        term = self.formula.terms[place]
        rest, truths = self._rest(term.role, place), self._samples.truths(term)
        for atom in term.excluded:
            fewer = replace(term, excluded=_without(term.excluded, atom))
            yield self._one(place, fewer, rest)
        for atom in term.required:
            others = replace(term, required=_without(term.required, atom))
            if others.required:
                yield self._one(place, others, rest)
            names, holds = self._further(atom.kind, {atom})
            widened = np.maximum(truths[atom], holds) * np.float32(STRENGTHS[term.strength])
            y = np.minimum(self._value(others, truths), widened)
            terms = partial(self._wider, place, atom, names)
            yield Moves(term.role, terms, np.maximum(rest, y))

    def removals(self) -> Iterator[Moves]:
        """Yield the ways to claim less: without one of several names or terms."""
        terms = self.formula.terms
        for place, term in enumerate(terms):
            rest = self._rest(term.role, place)
            if len(terms) > 1:
                others = (*terms[:place], *terms[place + 1 :])
                yield Moves(term.role, lambda _, others=others: others, rest[None])  # type: ignore[misc]
            for atom in term.required:
                for name in atom.names if len(atom.names) > 1 else ():
                    names = tuple(one for one in atom.names if one != name)
                    fewer = _exchanged(term, atom, Atom(atom.kind, names))
                    yield self._one(place, fewer, rest)

    def conditions(self) -> Iterator[Moves]:
        """Yield the ways to claim less by a further condition on the widest term."""
        place = self._widest()
        term = self.formula.terms[place]
        rest, value = self._rest(term.role, place), self._values[place]
        taken = {atom.kind for atom in term.required} - {"shows"}
        for kind in (one for one in KINDS[term.role] if one not in taken):
            names, holds = self._further(kind, term.required)
            y = np.minimum(value, np.float32(STRENGTHS[term.strength]) * holds)
            terms = partial(self._conditioned, place, kind, names)
            yield Moves(term.role, terms, np.maximum(rest, y))

    def _further(self, kind: Kind, atoms: Iterable[Atom]) -> tuple[list[str], np.ndarray]:
        """Return the names of a kind that none of its `atoms` has, and how far they hold."""
        names, holds = self._samples.named(kind)
        taken = {name for atom in atoms if atom.kind == kind for name in atom.names}
        chosen = [number for number, name in enumerate(names) if name not in taken]
        return [names[number] for number in chosen], holds[chosen]

    def _widest(self) -> int:
        """Return which of the strongest terms predicts most over the random samples."""
        terms = self.formula.terms
        strongest = min(term.strength for term in terms)
        masses = [
            float(self._samples.sums(term.role, value[None])[_RANDOM_Y, 0])
            if term.strength == strongest
            else -1.0
            for term, value in zip(terms, self._values, strict=True)
        ]
        return int(np.argmax(masses))

    def _one(self, place: int, term: Term, rest: np.ndarray) -> Moves:
        y = np.maximum(rest, self._value(term, self._samples.truths(term)))
        return Moves(term.role, lambda _: self._with(place, term), y[None])

    def _wider(self, place: int, atom: Atom, names: Sequence[str], number: int) -> tuple[Term, ...]:
        wider = Atom(atom.kind, (*atom.names, names[number]))
        return self._with(place, _exchanged(self.formula.terms[place], atom, wider))

    def _conditioned(
        self, place: int, kind: Kind, names: Sequence[str], number: int
    ) -> tuple[Term, ...]:
        term = self.formula.terms[place]
        required = (*term.required, Atom(kind, (names[number],)))
        return self._with(place, replace(term, required=required))

    def _with(self, place: int, term: Term) -> tuple[Term, ...]:
        return (*self.formula.terms[:place], term, *self.formula.terms[place + 1 :])

    def _value(self, term: Term, truths: dict[Atom, np.ndarray]) -> np.ndarray:
        held = [np.ones(self._samples.n_tokens(term.role), np.float32)]
        held += [truths[atom] for atom in term.required]
        held += [1 - truths[atom] for atom in term.excluded]
        return np.float32(STRENGTHS[term.strength]) * np.minimum.reduce(held)

    def _rest(self, role: Role, without: int = -1) -> np.ndarray:
        """Return the prediction without one term, float32 [tokens of a role]."""
        terms = enumerate(zip(self.formula.terms, self._values, strict=True))
        values = [v for place, (term, v) in terms if term.role == role and place != without]
        return np.maximum.reduce([np.zeros(self._samples.n_tokens(role), np.float32), *values])


def _without(atoms: tuple[Atom, ...], atom: Atom) -> tuple[Atom, ...]:
    return tuple(one for one in atoms if one != atom)


def _exchanged(term: Term, old: Atom, new: Atom) -> Term:
    return replace(term, required=tuple(new if one == old else one for one in term.required))
