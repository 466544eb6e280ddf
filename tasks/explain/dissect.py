"""Explain a neuron offline: find the concept whose presence best predicts its activations.

Follows network dissection (Bau et al., 2017), with tokens instead of pixels and correlation instead
of overlap, which needs no activation threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neuron_atlas.tasks.concepts.presence import index_words
from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.explain.concept_sums import (
    ConceptSums,
    TokenConcepts,
    add_up,
    text_concepts,
    visual_concepts,
)
from neuron_atlas.tasks.explain.explanation import Explainer, Explanation
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class ConceptMatch:
    """A concept, and the Pearson correlation (signed) of its presence with the activations."""

    concept: str
    correlation: float


@dataclass(frozen=True)
class Dissect(Explainer):
    """Explainer that names the best visual concept, the best word, or both, by the neuron's type.

    min_samples: concepts that occur in fewer of the neuron's samples are ignored.
    """

    name: str = "dissect"
    min_samples: AtLeastOne = 2

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: CallOptions
    ) -> list[Explanation]:
        """See `Explainer`. `no_evidence` if a neuron is never active or nothing correlates."""
        ids = list(dict.fromkeys(sample_id for one in evidence for sample_id in one.sample_ids))
        words = index_words([catalog[sample_id] for sample_id in ids])
        visual = self._matches(evidence, ids, "visual", visual_concepts(catalog, ids, words))
        text = self._matches(evidence, ids, "text", text_concepts(ids, words))
        return [
            _explanation(one, visual.get(number), text.get(number))
            for number, one in enumerate(evidence)
        ]

    def _matches(
        self, evidence: Sequence[Evidence], ids: Sequence[int], role: str, concepts: TokenConcepts
    ) -> dict[int, ConceptMatch]:
        """Return the best concept of a role, by neuron; none for neurons of the other role's type.

        concepts: of the samples `ids`.
        """
        place = {sample_id: number for number, sample_id in enumerate(ids)}
        activations, neurons, samples = [], [], []
        for number, neuron in enumerate(evidence):
            if neuron.scale > 0 and neuron.type in (role, *_BOTH_ROLES):
                for record in (*neuron.exemplars, *neuron.random):
                    activations.append(getattr(record, role))
                    neurons.append(number)
                    samples.append(place[record.sample_id])
        of_record = np.array(neurons, np.int64), np.array(samples, np.int64)
        sums = add_up(activations, *of_record, len(evidence), concepts)
        return best_matches(sums, self.min_samples)


_BOTH_ROLES = ("multi-modal", "unknown")
"""Types of neurons that may respond to either role."""


def _explanation(
    evidence: Evidence, visual: ConceptMatch | None, text: ConceptMatch | None
) -> Explanation:
    if evidence.scale <= 0:
        return _no_evidence(evidence, "the neuron is never active")
    if evidence.type == "unknown" and visual and text:
        # Neither role dominates, so only the better concept is named.
        visual, text = (visual, None) if visual.correlation >= text.correlation else (None, text)
    if visual is None and text is None:
        reason = "no concept correlates with the activations of the explainer's samples"
        return _no_evidence(evidence, reason)
    sample_ids = tuple(evidence.sample_ids)
    return Explanation(explanation_sentence(visual, text, len(sample_ids)), exemplar_ids=sample_ids)


def _no_evidence(evidence: Evidence, reason: str) -> Explanation:
    return Explanation("", "no_evidence", reason, exemplar_ids=tuple(evidence.sample_ids))


def explanation_sentence(
    visual: ConceptMatch | None, word: ConceptMatch | None, n_samples: int
) -> str:
    """Return the explanation in words, with its correlations.

    >>> sentence(Match("red", 0.8312), None, 25)
    'Image regions that show "red" (r = 0.83 over 25 samples).'
    """
    clauses, correlations = [], []
    if visual:
        clauses.append(f'image regions that show "{visual.concept}"')
        correlations.append(visual.correlation)
    if word:
        clauses.append(f'the word "{word.concept}" in the text')
        correlations.append(word.correlation)
    text = "; ".join(clauses)
    values = " and ".join(f"{correlation:.2f}" for correlation in correlations)
    return f"{text[0].upper()}{text[1:]} (r = {values} over {n_samples} samples)."


def best_matches(sums: ConceptSums, min_samples: int) -> dict[int, ConceptMatch]:
    """Return each neuron's concept with the highest positive correlation, by the neuron's place.

    On a tie it is the first by name. A neuron without a positive correlation with a concept in at
    least `min_samples` samples is left out.
    """
    correlations = sums.correlations()
    (eligible,) = np.nonzero((sums.samples >= min_samples) & (correlations > 0))
    # Rounded, because equal sums in another order differ by rounding errors.
    rounded = np.round(correlations[eligible], _DECIMALS)
    ordered = eligible[np.lexsort((sums.concept[eligible], -rounded, sums.neuron[eligible]))]
    neurons, first = np.unique(sums.neuron[ordered], return_index=True)
    return {
        neuron: ConceptMatch(sums.names[sums.concept[entry]], float(correlations[entry]))
        for neuron, entry in zip(neurons.tolist(), ordered[first].tolist(), strict=True)
    }


_DECIMALS = 12
"""Correlations that agree to this many decimals are a tie."""
