"""Explain a neuron offline: find the formula of words, concepts and places that best predicts it.

Follows network dissection (Bau et al., 2017) and compositional explanations (Mu and Andreas, 2020),
with tokens instead of pixels and correlation instead of overlap, which needs no activation
threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from annotated_types import Ge

from neuron_atlas.tasks.concepts.formula import STRENGTHS, Formula, Role, Term, canonical
from neuron_atlas.tasks.concepts.predict import TokenFacts, token_facts
from neuron_atlas.tasks.concepts.sentence import write_explanation
from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.explain.beam import search_formulas
from neuron_atlas.tasks.explain.candidates import CandidateFinder
from neuron_atlas.tasks.explain.explanation import Background, Explainer, Explanation
from neuron_atlas.tasks.explain.sample_tokens import BOTH_ROLES, ROLES, SampleTokens
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
    atoms of an explanation. penalty: correlation on the calibration samples that every further atom
    must be worth. beam: formulas that the search keeps at every step.
    """

    uses_background: ClassVar[bool] = True

    name: str = "dissect"
    min_samples: AtLeastOne = 2
    max_length: AtLeastOne = 10
    penalty: Annotated[float, Ge(0)] = 0.005
    beam: AtLeastOne = 3

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: CallOptions
    ) -> list[Explanation]:
        """See `Explainer`. `no_evidence` if a neuron is never active or nothing correlates.

        Without calibration samples, the explainer's own decide how long an explanation is. Raises
        ValueError if activations do not fit the tokens of their sample.
        """
        return self.explain_with(Background(), evidence, catalog, calls)

    def explain_with(
        self,
        background: Background,
        evidence: Sequence[Evidence],
        catalog: Catalog,
        calls: CallOptions,
    ) -> list[Explanation]:
        """See `Explainer` and `explain`."""
        others = {(one.layer, one.neuron): one for one in background.calibration}
        facts = token_facts(
            catalog,
            (i for part in (evidence, others.values()) for one in part for i in one.sample_ids),
        )
        finder = CandidateFinder(facts, self.min_samples, background.word_classes)
        return [
            self._explain(one, others.get((one.layer, one.neuron)), facts, finder)
            for one in evidence
        ]

    def _explain(
        self,
        evidence: Evidence,
        calibration: Evidence | None,
        facts: TokenFacts,
        finder: CandidateFinder,
    ) -> Explanation:
        if evidence.scale <= 0:
            return _no_evidence(evidence, "the neuron is never active")
        match = self._match(evidence, calibration, facts, finder)
        if match is None:
            reason = "no concept correlates with the activations of the explainer's samples"
            return _no_evidence(evidence, reason)
        sample_ids = tuple(evidence.sample_ids)
        correlations = [match.correlations[role] for role in ROLES if role in match.correlations]
        text = write_explanation(match.formula, correlations, len(sample_ids))
        return Explanation(text, exemplar_ids=sample_ids)

    def _match(
        self,
        evidence: Evidence,
        calibration: Evidence | None,
        facts: TokenFacts,
        finder: CandidateFinder,
    ) -> FormulaMatch | None:
        shown = SampleTokens(evidence, facts)
        judge = SampleTokens(calibration, facts) if calibration is not None else shown
        if not judge.varies:
            judge = shown
        x = shown.x - shown.x.mean() if len(shown.x) else shown.x
        roles = [role for role in ROLES if evidence.type in (role, *BOTH_ROLES)]
        candidates = finder.find(evidence.sample_ids, x, shown.n_visual, roles)
        # If neither role dominates, a formula is searched in each, and the better one is named.
        is_unknown = evidence.type == "unknown"
        offers = [candidates.of_role(role) for role in roles] if is_unknown else [candidates]
        best: FormulaMatch | None = None
        for offered in offers:
            found = search_formulas(
                shown.x, shown.weights, offered, self.max_length, self.penalty, self.beam
            )
            if not found:
                continue
            judge.load(term for terms, _ in found for term in terms)
            terms = max(
                (terms for terms, _ in found), key=lambda terms: judge.worth(terms, self.penalty)
            )
            shown.load(terms)
            stronger = _strengthen(terms, lambda terms: shown.worth(terms, self.penalty))
            match = FormulaMatch(canonical(stronger), shown.correlations(stronger))
            if best is None or max(match.correlations.values()) > max(best.correlations.values()):
                best = match
        return best


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


def _no_evidence(evidence: Evidence, reason: str) -> Explanation:
    return Explanation("", "no_evidence", reason, exemplar_ids=tuple(evidence.sample_ids))
