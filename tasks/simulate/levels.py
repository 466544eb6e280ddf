"""Make an explanation one level broader or narrower: controls for how much it claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from neuron_atlas.tasks.concepts.formula import Atom, Formula, Kind, Role, Term, canonical
from neuron_atlas.tasks.concepts.predict import TokenFacts, token_facts
from neuron_atlas.tasks.concepts.sentence import (
    can_be_quoted,
    read_explanation,
    write_explanation,
    write_formula,
)
from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.level_search import Claim, LevelSamples
from neuron_atlas.tasks.simulate.terms import read_terms

BROADER = 1.5
"""A broader claim predicts at least this many times the activation over the random samples."""
NARROWER = 0.8
"""A narrower claim predicts at most this share of the activation."""
_GROWTH = 1.1
"""Growth of a broader claim with every step."""
_STEPS = 6


@dataclass(frozen=True)
class Level:
    """An explanation one level up or down. text: None if there is none; reason: why."""

    text: str | None
    reason: str = ""


def neuron_levels(
    explanations: Mapping[tuple[int, int], str], evidence: Sequence[Evidence], catalog: Catalog
) -> dict[tuple[int, int], Mapping[str, Level]]:
    """Return `levels` of neurons by (layer, neuron).

    explanations: texts by the same keys. evidence: of the explainer; others have no levels.
    """
    chosen = [one for one in evidence if (one.layer, one.neuron) in explanations]
    facts = token_facts(catalog, (number for one in chosen for number in one.sample_ids))
    return {
        (one.layer, one.neuron): levels(explanations[one.layer, one.neuron], one, facts)
        for one in chosen
    }


def levels(explanation: str, evidence: Evidence, facts: TokenFacts) -> Mapping[str, Level]:
    """Return the explanation one level up and one level down: claims `broader` and `narrower`.

    Of all ways to claim more, those are taken that fit the neuron best on the explainer's samples,
    until the claim predicts BROADER times as much over the random ones. The widest of the strongest
    parts loses a condition, or gets a further word, concept or place. The narrower claim is without
    one of its words, concepts or parts; else it has a further condition. It is the one that fits
    best of those that predict at most NARROWER of the activation. An explanation in free words gets
    a clause with the further words and concepts, and has no narrower claim.

    evidence: the explainer's. facts: of its samples. Raises ValueError if they do not fit the
    tokens.
    """
    formula = read_explanation(explanation)
    start = formula or _named_freely(explanation)
    if not start.terms:
        nothing = Level(None, "the explanation names no word or concept")
        return {"broader": nothing, "narrower": nothing}
    samples = LevelSamples(evidence, facts)
    claim = Claim(start, samples)
    broader, narrower = _broader(claim), None
    if formula is not None:
        narrower = _narrower(claim)
    found = {}
    for name, one, why in (
        ("broader", broader, f"no such claim predicts {BROADER:g} times as much"),
        ("narrower", narrower, f"no such claim predicts at most {NARROWER:g} times as much"),
    ):
        if one is not None and formula is None:
            found[name] = Level(_extended(explanation, start, one.formula))
        elif one is not None:
            formula_of = canonical(one.formula.terms)
            found[name] = Level(write_explanation(formula_of, [one.correlation], len(samples.ids)))
        else:
            is_free = formula is None and name == "narrower"
            found[name] = Level(None, "the explanation is in free words" if is_free else why)
    return found


def _broader(start: Claim) -> Claim | None:
    claim = start
    for _ in range(_STEPS):
        least = max(_GROWTH * claim.mass, 1e-9)
        found = claim.best(claim.additions(), lambda mass, _, least=least: mass >= least)  # type: ignore[misc]
        if found is None:
            return None
        claim = found
        if claim.mass >= BROADER * start.mass:
            return claim
    return None


def _narrower(start: Claim) -> Claim | None:
    most = NARROWER * start.total
    for moves in (start.removals(), start.conditions()):
        if found := start.best(moves, lambda _, total: total <= most):
            return found
    return None


def _named_freely(explanation: str) -> Formula:
    """Return the terms that free words name, as a formula."""
    terms = read_terms(explanation)
    named: tuple[tuple[Role, Kind, frozenset[str]], ...] = (
        ("visual", "shows", terms.visual),
        ("text", "word", terms.text),
    )
    return Formula(
        tuple(Term(role, (Atom(kind, tuple(sorted(its))),)) for role, kind, its in named if its)
    )


def _extended(explanation: str, before: Formula, after: Formula) -> str:
    """Return free words with a clause for the names that only `after` has."""
    known = {(term.role, name) for term in before.terms for name in term.required[0].names}
    added = []
    for term in after.terms:
        (atom,) = term.required
        names = [n for n in atom.names if (term.role, n) not in known and can_be_quoted(n)]
        if names:
            added.append(replace(term, required=(Atom(atom.kind, tuple(names)),)))
    return f"{explanation.rstrip().removesuffix('.')}. {write_formula(Formula(tuple(added)))}."
