"""Find the candidates that would mostly repeat a concept that a formula has."""

from __future__ import annotations

from collections.abc import Sequence

from neuron_atlas.tasks.concepts.formula import Kind, Term
from neuron_atlas.tasks.explain.candidates import Candidates

_AROUND: tuple[Kind, ...] = ("edge", "near")


class Rivals:
    """The candidates that a formula with a term of a concept, or of its surroundings, does not add.

    How far a patch shows a concept is a share, so a term of its edge, or of the patches next to it,
    would mostly repeat the concept.
    """

    def __init__(self, candidates: Candidates) -> None:
        self._members = candidates.members
        self._showing: dict[str, int] = {}
        self._around: dict[str, list[int]] = {}
        for number, atom in enumerate(candidates.atoms):
            if atom.kind == "shows":
                self._showing[atom.names[0]] = number
            elif atom.kind in _AROUND:
                self._around.setdefault(atom.names[0], []).append(number)

    def of(self, terms: Sequence[Term], *, singles: bool = False) -> list[int]:
        """Return the candidates that terms rule out. singles: only those of one atom."""
        found: list[int] = []
        for atom in (atom for term in terms for atom in term.required):
            if atom.kind == "shows":
                found += self._around.get(atom.names[0], [])
            elif atom.kind in _AROUND and atom.names[0] in self._showing:
                shows = self._showing[atom.names[0]]
                found += [shows] if singles else self._with(shows)
        return found

    def _with(self, atom: int) -> list[int]:
        return [number for number, atoms in enumerate(self._members) if atom in atoms]
