"""The grammar of formulas: write a formula as a sentence, and read it back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from neuron_atlas.tasks.concepts.formula import (
    AREAS,
    KINDS,
    SENTENCES,
    Atom,
    Formula,
    Kind,
    Role,
    Term,
)

_ADVERBS = ("strongly", "moderately", "weakly")
_QUOTED = r'"[^"]+"'
_LIST = rf"{_QUOTED}(?:, {_QUOTED})*(?: or {_QUOTED})?"
_AREA = rf"(?:{'|'.join(AREAS)})(?:, (?:{'|'.join(AREAS)}))*(?: or (?:{'|'.join(AREAS)}))?"
_ORDINAL = (
    rf"(?:{'|'.join(SENTENCES)})(?:, (?:{'|'.join(SENTENCES)}))*(?: or (?:{'|'.join(SENTENCES)}))?"
)
_SHOWS = rf"show (?P<shows>{_LIST}(?: and also {_LIST})*)"
_VISUAL = re.compile(
    rf"image regions(?: that {_SHOWS})?(?: at the edge of (?P<edge>{_LIST}))?"
    rf"(?: next to (?P<near>{_LIST}))?(?: in the (?P<area>{_AREA}))?"
    rf"(?: but not (?P<not_shows>{_LIST}))?(?: but not at the edge of (?P<not_edge>{_LIST}))?"
    rf"(?: but not next to (?P<not_near>{_LIST}))?(?: but not in the (?P<not_area>{_AREA}))?"
)
_TEXT = re.compile(
    rf"(?:any word|the words? (?P<word>{_LIST}))(?: after (?P<after>{_LIST}))?"
    rf"(?: before (?P<before>{_LIST}))? in the (?:text|(?P<sentence>{_ORDINAL}) sentence)"
    rf"(?: but not after (?P<not_after>{_LIST}))?(?: but not before (?P<not_before>{_LIST}))?"
    rf"(?: but not in the (?P<not_sentence>{_ORDINAL}) sentence)?"
)
_STRENGTH = re.compile(rf"(?P<adverb>{'|'.join(_ADVERBS)}): ")
_FIGURES = re.compile(r" \(r = -?[\d.]+(?: and -?[\d.]+)? over \d+ samples?\)\.$")


def write_formula(formula: Formula) -> str:
    """Return the sentence of a canonical formula, without its full stop.

    >>> red, word = Atom("shows", ("red",)), Atom("word", ("large", "small"))
    >>> write_formula(Formula((Term("visual", (red,)), Term("text", (word,), strength=2))))
    'Strongly: image regions that show "red"; weakly: the words "large" or "small" in the text'
    """
    clauses = []
    strength = None if any(term.strength for term in formula.terms) else 0
    for term in formula.terms:
        adverb = "" if term.strength == strength else f"{_ADVERBS[term.strength]}: "
        strength = term.strength
        clauses.append(adverb + (_visual if term.role == "visual" else _text)(term))
    text = "; ".join(clauses)
    return text[:1].upper() + text[1:]


def write_explanation(formula: Formula, correlations: Sequence[float], n_samples: int) -> str:
    """Return the sentence of a formula, with its correlation over the tokens of each of its roles.

    >>> write_explanation(Formula((Term("visual", (Atom("shows", ("red",)),)),)), [0.8312], 25)
    'Image regions that show "red" (r = 0.83 over 25 samples).'
    """
    values = " and ".join(f"{correlation:.2f}" for correlation in correlations)
    return f"{write_formula(formula)} (r = {values} over {n_samples} samples)."


def read_explanation(text: str) -> Formula | None:
    """Return the formula of a text by `write_explanation`; None for any other text.

    A text without the figures counts as free text, even if `write_formula` could have written it.
    """
    figures = _FIGURES.search(text)
    return read_formula(text[: figures.start()]) if figures else None


def read_formula(sentence: str) -> Formula | None:
    """Return the formula of a sentence by `write_formula`; None for any other text."""
    text = sentence[:1].lower() + sentence[1:]
    terms: list[Term] = []
    place, strength = 0, 0
    while True:
        if adverb := _STRENGTH.match(text, place):
            strength, place = _ADVERBS.index(adverb["adverb"]), adverb.end()
        visual, words = _VISUAL.match(text, place), _TEXT.match(text, place)
        match = visual or words
        if match is None:
            return None
        found = {name: value for name, value in match.groupdict().items() if value}
        role: Role = "visual" if visual else "text"
        required = _atoms(found, role, "")
        if not required:
            return None
        excluded = _atoms(found, role, "not_")
        terms.append(Term(role, required, excluded, strength))
        place = match.end()
        if not text.startswith("; ", place):
            return Formula(tuple(terms)) if place == len(text) else None
        place += 2


def can_be_quoted(name: str) -> bool:
    """Return whether a sentence can quote a name and read it back."""
    return bool(name) and '"' not in name and name.isprintable()


def _visual(term: Term) -> str:
    text = "image regions"
    shows = [_quote(atom) for atom in term.required if atom.kind == "shows"]
    if shows:
        text += f" that show {' and also '.join(shows)}"
    text += _optional(term.required, "edge", " at the edge of {}")
    text += _optional(term.required, "near", " next to {}")
    text += _optional(term.required, "area", " in the {}")
    text += _optional(term.excluded, "shows", " but not {}")
    text += _optional(term.excluded, "edge", " but not at the edge of {}")
    text += _optional(term.excluded, "near", " but not next to {}")
    return text + _optional(term.excluded, "area", " but not in the {}")


def _text(term: Term) -> str:
    text = "any word"
    for atom in term.required:
        if atom.kind == "word":
            text = f"the word{'s' if len(atom.names) > 1 else ''} {_quote(atom)}"
    text += _optional(term.required, "after", " after {}")
    text += _optional(term.required, "before", " before {}")
    text += _optional(term.required, "sentence", " in the {} sentence") or " in the text"
    text += _optional(term.excluded, "after", " but not after {}")
    text += _optional(term.excluded, "before", " but not before {}")
    return text + _optional(term.excluded, "sentence", " but not in the {} sentence")


def _optional(atoms: tuple[Atom, ...], kind: Kind, form: str) -> str:
    return "".join(form.format(_quote(atom)) for atom in atoms if atom.kind == kind)


def _quote(atom: Atom) -> str:
    is_open = atom.kind not in ("area", "sentence")
    names = [f'"{name}"' if is_open else name for name in atom.names]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _atoms(found: dict[str, str], role: Role, prefix: str) -> tuple[Atom, ...]:
    atoms = []
    for kind in KINDS[role]:
        value = found.get(prefix + kind)
        if value is None:
            continue
        if kind in ("area", "sentence"):
            atoms.append(Atom(kind, tuple(re.split(r", | or ", value))))
        else:
            parts = re.split(r'(?<=") and also (?=")', value)
            atoms += [Atom(kind, tuple(re.findall(r'"([^"]+)"', part))) for part in parts]
    return tuple(atoms)
