"""Formulas: the explanations that are composed of words, concepts and places."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["visual", "text"]
Kind = Literal["shows", "edge", "near", "area", "word", "after", "before", "sentence"]

KINDS: dict[Role, tuple[Kind, ...]] = {
    "visual": ("shows", "edge", "near", "area"),
    "text": ("word", "after", "before", "sentence"),
}
"""Kinds of atoms by role, in the order in which a sentence names them."""
STRENGTHS = (1.0, 0.6, 0.3)
"""Predicted activation of strong, moderate and weak terms; only their ratios matter."""
AREAS = (
    *("whole image", "top row", "bottom row", "left column", "right column", "corners", "center"),
    *("top half", "bottom half", "left half", "right half"),
    *("top left quarter", "top right quarter", "bottom left quarter", "bottom right quarter"),
)
"""Areas of an image; its outer rows and columns are one patch wide."""
SENTENCES = ("first", "second", "third")
"""Sentences of a text that an atom can name."""


@dataclass(frozen=True, order=True)
class Atom:
    """A named mask over tokens, which holds if any of its `names` does.

    kind: `shows` (the patch shows a concept), `edge` (a concept covers it in part), `near` (the
    patch next to it shows a concept), `area` (one of AREAS), `word` (the token's word), `after` and
    `before` (the preceding and following word), `sentence` (one of SENTENCES). A punctuation mark
    counts as a word.
    """

    kind: Kind
    names: tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """Tokens of a role that all `required` atoms and none of the `excluded` ones hold for.

    strength: index in STRENGTHS. At most one required and one excluded atom of each kind, both in
    the order of KINDS; a word is never excluded.
    """

    role: Role
    required: tuple[Atom, ...]
    excluded: tuple[Atom, ...] = ()
    strength: int = 0


@dataclass(frozen=True)
class Formula:
    """Predicts the strength of the strongest term that holds for a token, and 0 without any."""

    terms: tuple[Term, ...]


def canonical(terms: Iterable[Term]) -> Formula:
    """Return the formula of some terms in the one form that its sentence has.

    Terms that differ only in the names of one atom become one term. Strong terms come first, and
    visual ones before those of text. Terms of the same strength are all strong.
    """
    merged = list(dict.fromkeys(map(_sorted, terms)))
    if len({term.strength for term in merged}) == 1:
        merged = [replace(term, strength=0) for term in merged]
    pair = _find_pair(merged)
    while pair:
        one, other, union = pair
        merged = [term for term in merged if term not in (one, other)]
        if union not in merged:
            merged.append(union)
        pair = _find_pair(merged)
    merged.sort(key=lambda term: (term.strength, term.role == "text", term.required, term.excluded))
    return Formula(tuple(merged))


def _sorted(term: Term) -> Term:
    order = KINDS[term.role].index
    required, excluded = (
        tuple(
            Atom(atom.kind, tuple(sorted(set(atom.names))))
            for atom in sorted(atoms, key=lambda atom: (order(atom.kind), atom.names))
        )
        for atoms in (term.required, term.excluded)
    )
    return Term(term.role, required, excluded, term.strength)


def _find_pair(terms: list[Term]) -> tuple[Term, Term, Term] | None:
    """Return two terms that can be one, and this one."""
    for number, one in enumerate(terms):
        for other in terms[number + 1 :]:
            if (union := _union(one, other)) is not None:
                return one, other, union
    return None


def _union(one: Term, other: Term) -> Term | None:
    same = (one.role, one.excluded, one.strength) == (other.role, other.excluded, other.strength)
    kinds = [[atom.kind for atom in term.required] for term in (one, other)]
    if not same or kinds[0] != kinds[1]:
        return None
    differ = [
        n for n, (a, b) in enumerate(zip(one.required, other.required, strict=True)) if a != b
    ]
    if len(differ) != 1:
        return None
    required = list(one.required)
    place = differ[0]
    names = {*one.required[place].names, *other.required[place].names}
    required[place] = Atom(required[place].kind, tuple(sorted(names)))
    return Term(one.role, tuple(required), one.excluded, one.strength)
