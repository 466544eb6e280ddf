"""The offline explainer: the one concept whose presence best predicts a neuron's activations.

In the spirit of network dissection (Bau et al., 2017), with tokens for pixels and correlation for
overlap, so that no activity threshold has to be chosen.
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
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.settings import AtLeastOne


@dataclass(frozen=True)
class Match:
    """A concept and the signed Pearson correlation of its presence with the activations."""

    concept: str
    correlation: float


@dataclass(frozen=True)
class Dissect(Explainer):
    """Names the best visual concept, the best word, or both, by the neuron's type.

    min_samples: ignore concepts that are in fewer of the neuron's samples.
    """

    name: str = "dissect"
    min_samples: AtLeastOne = 2

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: Calls
    ) -> list[Explanation]:
        """One sentence a neuron; `no_evidence` where it is never active or nothing correlates."""
        presence = _Presence(catalog)
        return [self._explain_one(neuron, presence) for neuron in evidence]

    def _explain_one(self, evidence: Evidence, presence: _Presence) -> Explanation:
        seen = (*evidence.exemplars, *evidence.random)
        if evidence.scale <= 0:
            return _no_evidence(evidence, "the neuron is never active")
        visual = text = None
        if evidence.type != "text":
            visual = best_match(presence.visual_scores(seen), self.min_samples)
        if evidence.type != "visual":
            text = best_match(presence.text_scores(seen), self.min_samples)
        if evidence.type == "unknown" and visual and text:
            # No role leads, so one concept must do: the better of the two.
            visual, text = (
                (visual, None) if visual.correlation >= text.correlation else (None, text)
            )
        if visual is None and text is None:
            reason = "no concept correlates with the activations of the explainer's samples"
            return _no_evidence(evidence, reason)
        said = sentence(visual, text, len(seen))
        return Explanation(said, exemplar_ids=tuple(evidence.sample_ids))


@dataclass
class _Tally:
    """What correlating one concept with activations takes: sums over the tokens that carry it."""

    samples: int = 0
    sum_c: float = 0.0
    sum_cc: float = 0.0
    sum_ca: float = 0.0


@dataclass(frozen=True)
class _Scores:
    tallies: dict[str, _Tally]
    n: int
    sum_a: float
    sum_aa: float


def _no_evidence(evidence: Evidence, reason: str) -> Explanation:
    return Explanation("", "no_evidence", reason, exemplar_ids=tuple(evidence.sample_ids))


def sentence(visual: Match | None, text: Match | None, n_samples: int) -> str:
    """Say what was found, with the figures it rests on.

    >>> sentence(Match("red", 0.8312), None, 25)
    'Image regions that show "red" (r = 0.83 over 25 samples).'
    """
    clauses, figures = [], []
    if visual:
        clauses.append(f'image regions that show "{visual.concept}"')
        figures.append(visual.correlation)
    if text:
        clauses.append(f'the word "{text.concept}" in the text')
        figures.append(text.correlation)
    said = "; ".join(clauses)
    shown = " and ".join(f"{figure:.2f}" for figure in figures)
    return f"{said[0].upper()}{said[1:]} (r = {shown} over {n_samples} samples)."


def best_match(scores: _Scores, min_samples: int) -> Match | None:
    """The concept of the highest positive correlation; among equals the first by name."""
    matches = [
        Match(concept, correlation)
        for concept, tally in sorted(scores.tallies.items())
        if tally.samples >= min_samples and (correlation := _correlation(scores, tally)) > 0
    ]
    return max(matches, key=lambda match: match.correlation, default=None)


def _correlation(scores: _Scores, tally: _Tally) -> float:
    """Pearson's r from sums; 0 where either side does not vary."""
    covariance = scores.n * tally.sum_ca - tally.sum_c * scores.sum_a
    spread_c = scores.n * tally.sum_cc - tally.sum_c**2
    spread_a = scores.n * scores.sum_aa - scores.sum_a**2
    if spread_c <= 1e-9 or spread_a <= 1e-12 * max(scores.n * scores.sum_aa, 1e-12):
        return 0.0
    return float(covariance / np.sqrt(spread_c * spread_a))


class _Presence:
    """Concept presence of the catalog's samples, computed once for all neurons of a call."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._visual = lru_cache(maxsize=None)(self._visual_concepts)
        self._words = lru_cache(maxsize=None)(self._text_words)

    def visual_scores(self, seen: Sequence[ActivationRecord]) -> _Scores:
        tallies: dict[str, _Tally] = defaultdict(_Tally)
        for excitation in seen:
            names, cover = self._visual(excitation.sample_id)
            products = cover @ excitation.visual
            sums, squares = cover.sum(1), np.square(cover).sum(1)
            for name, c, cc, ca in zip(names, sums, squares, products, strict=True):
                _add(tallies[name], c, cc, ca)
        return _scores(tallies, [excitation.visual for excitation in seen])

    def text_scores(self, seen: Sequence[ActivationRecord]) -> _Scores:
        tallies: dict[str, _Tally] = defaultdict(_Tally)
        for excitation in seen:
            names, index = self._words(excitation.sample_id)
            carried = index >= 0
            counts = np.bincount(index[carried], minlength=len(names))
            sums = np.bincount(index[carried], excitation.text[carried], minlength=len(names))
            for name, count, total in zip(names, counts, sums, strict=True):
                _add(tallies[name], count, count, total)
        return _scores(tallies, [excitation.text for excitation in seen])

    def _visual_concepts(self, sample_id: int) -> tuple[tuple[str, ...], np.ndarray]:
        """Names and coverage [concepts, n_visual]; without ground truth, the words of the text,
        each taken to be everywhere in the image."""
        sample = self._catalog[sample_id]
        truths = self._catalog.concepts(sample_id)
        if truths:
            cover = np.stack([patch_coverage(truth, sample) for truth in truths])
            return tuple(truth.name for truth in truths), cover
        names = tuple(sorted(set(words_of(sample.text))))
        return names, np.ones((len(names), sample.n_visual), dtype=np.float32)

    def _text_words(self, sample_id: int) -> tuple[tuple[str, ...], np.ndarray]:
        """The sample's distinct words, and for each text token the index of its word or -1."""
        words = token_words(self._catalog[sample_id])
        names = tuple(sorted({word for word in words if word}))
        place = {name: index for index, name in enumerate(names)}
        return names, np.array([place.get(word, -1) for word in words], dtype=np.int64)


def _add(tally: _Tally, c: float, cc: float, ca: float) -> None:
    tally.samples += 1
    tally.sum_c += float(c)
    tally.sum_cc += float(cc)
    tally.sum_ca += float(ca)


def _scores(tallies: dict[str, _Tally], activations: Sequence[np.ndarray]) -> _Scores:
    values = np.concatenate([*activations, np.empty(0, np.float32)]).astype(np.float64)
    return _Scores(tallies, len(values), float(values.sum()), float(np.square(values).sum()))
