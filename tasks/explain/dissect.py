"""Explain a neuron offline: find the concept whose presence best predicts its activations.

Follows network dissection (Bau et al., 2017), with tokens instead of pixels and correlation instead
of overlap, which needs no activation threshold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from neuron_atlas.tasks.concepts.presence import patch_coverage, token_words, words_of
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
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
        presence = _Presence(catalog)
        return [self._explain_one(neuron, presence) for neuron in evidence]

    def _explain_one(self, evidence: Evidence, presence: _Presence) -> Explanation:
        samples = (*evidence.exemplars, *evidence.random)
        if evidence.scale <= 0:
            return _no_evidence(evidence, "the neuron is never active")
        visual = text = None
        if evidence.type != "text":
            visual = best_match(presence.visual_sums(samples), self.min_samples)
        if evidence.type != "visual":
            text = best_match(presence.text_sums(samples), self.min_samples)
        if evidence.type == "unknown" and visual and text:
            # Neither role dominates, so only the better concept is named.
            visual, text = (
                (visual, None) if visual.correlation >= text.correlation else (None, text)
            )
        if visual is None and text is None:
            reason = "no concept correlates with the activations of the explainer's samples"
            return _no_evidence(evidence, reason)
        explanation = explanation_sentence(visual, text, len(samples))
        return Explanation(explanation, exemplar_ids=tuple(evidence.sample_ids))


@dataclass
class _ConceptSums:
    """Sums for one concept over all tokens. c: presence of the concept; a: activation.

    samples: number of samples that contain the concept.
    """

    samples: int = 0
    sum_c: float = 0.0
    sum_cc: float = 0.0
    sum_ca: float = 0.0


@dataclass(frozen=True)
class _Sums:
    """Sums of one role's tokens. concepts: by name; n: tokens; a: activation."""

    concepts: dict[str, _ConceptSums]
    n: int
    sum_a: float
    sum_aa: float


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


def best_match(sums: _Sums, min_samples: int) -> ConceptMatch | None:
    """Return the concept with the highest positive correlation; on a tie, the first by name.

    None if no concept in at least `min_samples` samples has a positive correlation.
    """
    matches = [
        ConceptMatch(concept, correlation)
        for concept, of_concept in sorted(sums.concepts.items())
        if of_concept.samples >= min_samples and (correlation := _correlation(sums, of_concept)) > 0
    ]
    return max(matches, key=lambda match: match.correlation, default=None)


def _correlation(sums: _Sums, concept: _ConceptSums) -> float:
    """Return Pearson's r from sums; 0 if presence or activation is constant."""
    covariance = sums.n * concept.sum_ca - concept.sum_c * sums.sum_a
    variance_c = sums.n * concept.sum_cc - concept.sum_c**2
    variance_a = sums.n * sums.sum_aa - sums.sum_a**2
    if variance_c <= 1e-9 or variance_a <= 1e-12 * max(sums.n * sums.sum_aa, 1e-12):
        return 0.0
    return float(covariance / np.sqrt(variance_c * variance_a))


class _Presence:
    """Concept presence in the catalog's samples, computed once for all neurons of a call."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._visual = lru_cache(maxsize=None)(self._visual_concepts)
        self._words = lru_cache(maxsize=None)(self._text_words)

    def visual_sums(self, samples: Sequence[ActivationRecord]) -> _Sums:
        concepts: dict[str, _ConceptSums] = defaultdict(_ConceptSums)
        for excitation in samples:
            names, coverage = self._visual(excitation.sample_id)
            products = coverage @ excitation.visual
            sums, squares = coverage.sum(1), np.square(coverage).sum(1)
            for name, c, cc, ca in zip(names, sums, squares, products, strict=True):
                _add(concepts[name], c, cc, ca)
        return _role_sums(concepts, [excitation.visual for excitation in samples])

    def text_sums(self, samples: Sequence[ActivationRecord]) -> _Sums:
        concepts: dict[str, _ConceptSums] = defaultdict(_ConceptSums)
        for excitation in samples:
            names, index = self._words(excitation.sample_id)
            in_word = index >= 0
            counts = np.bincount(index[in_word], minlength=len(names))
            sums = np.bincount(index[in_word], excitation.text[in_word], minlength=len(names))
            for name, count, total in zip(names, counts, sums, strict=True):
                _add(concepts[name], count, count, total)
        return _role_sums(concepts, [excitation.text for excitation in samples])

    def _visual_concepts(self, sample_id: int) -> tuple[tuple[str, ...], np.ndarray]:
        """Return concept names and their coverage [concepts, n_visual].

        Without ground truth the concepts are the words of the text, and each covers the whole
        image.
        """
        sample = self._catalog[sample_id]
        truths = self._catalog.concepts(sample_id)
        if truths:
            coverage = np.stack([patch_coverage(truth, sample) for truth in truths])
            return tuple(truth.name for truth in truths), coverage
        names = tuple(sorted(set(words_of(sample.text))))
        return names, np.ones((len(names), sample.n_visual), dtype=np.float32)

    def _text_words(self, sample_id: int) -> tuple[tuple[str, ...], np.ndarray]:
        """Return the sample's distinct words, and each text token's index in them (-1: none)."""
        words = token_words(self._catalog[sample_id])
        names = tuple(sorted({word for word in words if word}))
        index = {name: number for number, name in enumerate(names)}
        return names, np.array([index.get(word, -1) for word in words], dtype=np.int64)


def _add(concept: _ConceptSums, c: float, cc: float, ca: float) -> None:
    concept.samples += 1
    concept.sum_c += float(c)
    concept.sum_cc += float(cc)
    concept.sum_ca += float(ca)


def _role_sums(concepts: dict[str, _ConceptSums], activations: Sequence[np.ndarray]) -> _Sums:
    values = np.concatenate([*activations, np.empty(0, np.float32)]).astype(np.float64)
    return _Sums(concepts, len(values), float(values.sum()), float(np.square(values).sum()))
