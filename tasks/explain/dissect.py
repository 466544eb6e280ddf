"""Explain a neuron offline: find the formula of words, concepts and places that best predicts it.

Follows network dissection (Bau et al., 2017) and compositional explanations (Mu and Andreas, 2020),
with tokens instead of pixels and correlation instead of overlap, which needs no activation
threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge

from neuron_atlas.tasks.concepts.formula import STRENGTHS, Formula, Role, Term, canonical
from neuron_atlas.tasks.concepts.predict import TokenFacts, token_facts
from neuron_atlas.tasks.concepts.sentence import write_explanation
from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.explain.beam import search_formulas
from neuron_atlas.tasks.explain.candidates import CandidateFinder
from neuron_atlas.tasks.explain.explanation import Explainer, Explanation
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class FormulaMatch:
    """A formula, and the Pearson correlation of its prediction with the activations, by role."""

    formula: Formula
    correlations: dict[Role, float]


@dataclass(frozen=True)
class Dissect(Explainer):
    """Explainer that composes concepts, words and places, in the roles of the neuron's type.

    min_samples: atoms that hold in fewer of the neuron's samples are ignored. max_length: most
    atoms of an explanation. penalty: gain in correlation that is needed for every further atom.
    beam: formulas that the search keeps at every step.
    """

    name: str = "dissect"
    min_samples: AtLeastOne = 2
    max_length: AtLeastOne = 10
    penalty: Annotated[float, Ge(0)] = 0.01
    beam: AtLeastOne = 3

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: CallOptions
    ) -> list[Explanation]:
        """See `Explainer`. `no_evidence` if a neuron is never active or nothing correlates.

        Raises ValueError if activations do not fit the tokens of their sample.
        """
        facts = token_facts(catalog, (i for one in evidence for i in one.sample_ids))
        finder = CandidateFinder(facts, self.min_samples)
        return [self._explain(one, facts, finder) for one in evidence]

    def _explain(
        self, evidence: Evidence, facts: TokenFacts, finder: CandidateFinder
    ) -> Explanation:
        if evidence.scale <= 0:
            return _no_evidence(evidence, "the neuron is never active")
        match = self._match(evidence, facts, finder)
        if match is None:
            reason = "no concept correlates with the activations of the explainer's samples"
            return _no_evidence(evidence, reason)
        sample_ids = tuple(evidence.sample_ids)
        correlations = [match.correlations[role] for role in _ROLES if role in match.correlations]
        text = write_explanation(match.formula, correlations, len(sample_ids))
        return Explanation(text, exemplar_ids=sample_ids)

    def _match(
        self, evidence: Evidence, facts: TokenFacts, finder: CandidateFinder
    ) -> FormulaMatch | None:
        records = (*evidence.exemplars, *evidence.random)
        x = np.concatenate(
            [np.zeros(0), *(one.visual for one in records), *(one.text for one in records)]
        ).astype(np.float64)
        # Exemplars and random samples weigh the same, however many there are of each.
        shares = [1 / len(kind) for kind in (evidence.exemplars, evidence.random) for _ in kind]
        lengths = [len(getattr(one, role)) for role in _ROLES for one in records]
        weights = np.repeat([*shares, *shares], lengths)
        roles = [role for role in _ROLES if evidence.type in (role, *_BOTH_ROLES)]
        for role in roles:
            real = [len(getattr(one, role)) for one in records]
            if real != facts.lengths(role, evidence.sample_ids):
                raise ValueError("a sample's activations and its tokens differ in number")
        centered = x - x.mean() if len(x) else x
        n_visual = sum(lengths[: len(records)])
        candidates = finder.find(evidence.sample_ids, centered, n_visual, roles)
        # If neither role dominates, a formula is searched in each, and the better one is named.
        is_unknown = evidence.type == "unknown"
        offers = [candidates.of_role(role) for role in roles] if is_unknown else [candidates]
        best: FormulaMatch | None = None
        for offered in offers:
            found = search_formulas(x, weights, offered, self.max_length, self.penalty, self.beam)
            if not found:
                continue

            # The search takes a patch to show a concept or not; here coverage counts in shares.
            def worth(terms: Sequence[Term]) -> float:
                length = sum(len((*term.required, *term.excluded)) for term in terms)
                predicted = _predict(Formula(tuple(terms)), evidence, facts)
                return round(_weighted(x, predicted, weights) - self.penalty * length, _DECIMALS)

            terms = max((terms for terms, _ in found), key=worth)
            match = _measure(canonical(_strengthen(terms, worth)), evidence, facts)
            if best is None or max(match.correlations.values()) > max(best.correlations.values()):
                best = match
        return best


_ROLES: tuple[Role, Role] = ("visual", "text")
_BOTH_ROLES = ("multi-modal", "unknown")
"""Types of neurons that may respond to either role."""
_DECIMALS = 9
"""Formulas whose worth agrees to this many decimals are a tie, which the first one wins."""


def _measure(formula: Formula, evidence: Evidence, facts: TokenFacts) -> FormulaMatch:
    records = (*evidence.exemplars, *evidence.random)
    predictions = facts.predict(formula, evidence.sample_ids)
    correlations: dict[Role, float] = {}
    for role, predicted in zip(_ROLES, predictions, strict=True):
        if any(term.role == role for term in formula.terms):
            real = np.concatenate([getattr(one, role) for one in records])
            correlations[role] = _correlation(real, np.concatenate(predicted))
    return FormulaMatch(formula, correlations)


def _strengthen(terms: Sequence[Term], worth: Callable[[Sequence[Term]], float]) -> list[Term]:
    """Return terms with the best strength of each that shows a concept, given the others."""
    best = list(terms)
    for place, term in enumerate(terms):
        if any(atom.kind == "shows" for atom in term.required):
            options = [
                [*best[:place], replace(term, strength=strength), *best[place + 1 :]]
                for strength in range(len(STRENGTHS))
            ]
            best = max(options, key=worth)
    return best


def _predict(formula: Formula, evidence: Evidence, facts: TokenFacts) -> np.ndarray:
    """Return the prediction for all visual tokens of all samples, and then for all text tokens."""
    parts = facts.predict(formula, evidence.sample_ids)
    for role, predicted in zip(_ROLES, parts, strict=True):
        if not any(term.role == role for term in formula.terms):
            records = (*evidence.exemplars, *evidence.random)
            predicted[:] = [np.zeros(len(getattr(one, role)), np.float32) for one in records]
    return np.concatenate([*parts[0], *parts[1]]).astype(np.float64)


def _weighted(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted correlation; 0 if a side is constant."""
    w = weights / weights.sum()
    x, y = x - w @ x, y - w @ y
    product = float((w @ x**2) * (w @ y**2))
    return float(w @ (x * y)) / product**0.5 if product > 1e-24 else 0.0


def _correlation(real: np.ndarray, predicted: np.ndarray) -> float:
    x, y = (one.astype(np.float64) - one.mean(dtype=np.float64) for one in (real, predicted))
    product = float((x @ x) * (y @ y))
    return float(x @ y) / product**0.5 if product > 0 else 0.0


def _no_evidence(evidence: Evidence, reason: str) -> Explanation:
    return Explanation("", "no_evidence", reason, exemplar_ids=tuple(evidence.sample_ids))
