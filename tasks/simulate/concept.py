"""Simulate offline: predict the tokens that an explanation names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from neuron_atlas.tasks.concepts.formula import Formula
from neuron_atlas.tasks.concepts.predict import token_facts
from neuron_atlas.tasks.concepts.presence import index_words, patch_coverages, words_of
from neuron_atlas.tasks.concepts.sentence import read_explanation
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog, Sample, TrueConcept
from neuron_atlas.tasks.simulate.simulator import (
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)
from neuron_atlas.tasks.simulate.terms import normalize_term, read_terms


@dataclass(frozen=True)
class ConceptSimulator(Simulator):
    """Simulator that predicts what an explanation by `Dissect` says, term by term.

    For any other text it predicts 1 for tokens with a concept that the text names, else 0.
    A visual token's prediction is the share that the true concept covers. In a source without
    ground truth, a named word in the sample's text counts as present in the whole image.
    """

    compares_levels: ClassVar[bool] = True

    name: str = "concept"

    def simulate(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See Simulator. An explanation that names nothing predicts 0 everywhere.

        Explanations that name the same tokens of a sample share one Prediction.
        """
        formulas = {text: read_explanation(text) for text in {one.explanation for one in requests}}
        by_formula: dict[Formula, _Places] = {}
        by_text: dict[str, _Places] = {
            text: {} if formula is None else by_formula.setdefault(formula, {})
            for text, formula in formulas.items()
        }
        for place, one in enumerate(requests):
            by_text[one.explanation].setdefault(one.sample_id, []).append(place)
        predictions = _evaluate(by_formula, catalog)
        free = [n for n, one in enumerate(requests) if formulas[one.explanation] is None]
        found = self._simulate_free([requests[place] for place in free], catalog)
        predictions |= dict(zip(free, found, strict=True))
        return [predictions[place] for place in range(len(requests))]

    def _simulate_free(
        self, requests: Sequence[SimulationRequest], catalog: Catalog
    ) -> list[Prediction]:
        terms = {text: read_terms(text) for text in {one.explanation for one in requests}}
        words = {text: _words(its.text) for text, its in terms.items()}
        sample_ids = list(dict.fromkeys(one.sample_id for one in requests))
        shown = _describe_images(catalog, sample_ids)
        found = _find_words(catalog, sample_ids, {word for its in words.values() for word in its})
        named = [
            (
                one.sample_id,
                _named_in_image(shown[one.sample_id], terms[one.explanation].visual),
                tuple(word for word in words[one.explanation] if word in found[one.sample_id]),
            )
            for one in requests
        ]
        distinct = list(dict.fromkeys(named))
        coverage = _cover(catalog, distinct)
        predictions = {
            (sample_id, in_image, in_text): Prediction(
                _predict_visual(catalog[sample_id], in_image, coverage[sample_id]),
                _predict_text(catalog[sample_id], [found[sample_id][word] for word in in_text]),
                estimator="presence",
            )
            for sample_id, in_image, in_text in distinct
        }
        return [predictions[one] for one in named]


_Places = dict[int, list[int]]
"""Positions of the requests for each sample_id."""


def _evaluate(by_formula: Mapping[Formula, _Places], catalog: Catalog) -> dict[int, Prediction]:
    """Return the predictions of requests for formulas, by their position."""
    facts = token_facts(
        catalog, (number for by_sample in by_formula.values() for number in by_sample)
    )
    predictions: dict[int, Prediction] = {}
    for formula, by_sample in by_formula.items():
        traces = zip(*facts.predict(formula, list(by_sample)), strict=True)
        for (visual, text), places in zip(traces, by_sample.values(), strict=True):
            prediction = Prediction(visual, text, estimator="presence")
            for place in places:
                predictions[place] = prediction
    return predictions


_InImage = tuple[TrueConcept, ...] | None
"""The true concepts of a sample that an explanation names; None for the whole image."""
_Named = tuple[int, _InImage, tuple[str, ...]]
"""A sample_id, with the concepts of its image and the words of its text that are named."""


def _words(terms: Collection[str]) -> tuple[str, ...]:
    """Return the words of terms: a term with several words names the tokens of each of them."""
    return tuple(sorted({normalize_term(word) for term in terms for word in term.split()}))


def _describe_images(
    catalog: Catalog, sample_ids: Sequence[int]
) -> dict[int, str | dict[str, list[TrueConcept]]]:
    """Return the true concepts of each image by the terms that name them; without ground truth the
    normalized words of the text, between spaces."""
    terms = cache(lambda name, words: frozenset(map(normalize_term, (name, *words))))
    images: dict[int, str | dict[str, list[TrueConcept]]] = {}
    for sample_id in sample_ids:
        by_term: dict[str, list[TrueConcept]] = {}
        for truth in catalog.concepts(sample_id):
            for term in terms(truth.name, truth.words):
                by_term.setdefault(term, []).append(truth)
        if not by_term:
            words = map(normalize_term, words_of(catalog[sample_id].text))
            images[sample_id] = f" {' '.join(words)} "
        else:
            images[sample_id] = by_term
    return images


def _named_in_image(shown: str | dict[str, list[TrueConcept]], terms: frozenset[str]) -> _InImage:
    if isinstance(shown, str):
        return None if any(f" {term} " in shown for term in terms) else ()
    return tuple(dict.fromkeys(truth for term in terms for truth in shown.get(term, ())))


def _find_words(
    catalog: Catalog, sample_ids: Sequence[int], words: set[str]
) -> dict[int, dict[str, np.ndarray]]:
    """Return which text tokens belong to each of the `words`, by sample_id and word."""
    index = index_words([catalog[sample_id] for sample_id in sample_ids])
    names = [normalize_term(name) for name in index.names]
    is_wanted = np.array([*(name in words for name in names), False])
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    term = np.array([*(numbers[name] for name in names), -1])[index.tokens]
    (tokens,) = np.nonzero(is_wanted[index.tokens])
    samples = np.searchsorted(index.token_offsets, tokens, side="right") - 1
    # Tokens of the same sample and word side by side.
    tokens = tokens[np.lexsort((tokens, term[tokens], samples))]
    samples = np.searchsorted(index.token_offsets, tokens, side="right") - 1
    keys = samples * len(names) + term[tokens]
    bounds = np.flatnonzero(np.diff(keys, prepend=-1, append=-1))
    places = tokens - index.token_offsets[samples]
    terms = list(numbers)
    found: dict[int, dict[str, np.ndarray]] = {sample_id: {} for sample_id in sample_ids}
    firsts = bounds[:-1]
    for sample, number, first, stop in zip(
        samples[firsts].tolist(),
        term[tokens[firsts]].tolist(),
        firsts.tolist(),
        bounds[1:].tolist(),
        strict=True,
    ):
        found[sample_ids[sample]][terms[number]] = places[first:stop]
    return found


def _cover(catalog: Catalog, named: Sequence[_Named]) -> dict[int, dict[TrueConcept, np.ndarray]]:
    """Return the coverage of all named concepts, float32 [n_visual], by sample_id and concept."""
    keys = list(
        dict.fromkeys(
            (sample_id, truth) for sample_id, truths, _ in named for truth in truths or ()
        )
    )
    coverage: dict[int, dict[TrueConcept, np.ndarray]] = {one[0]: {} for one in named}
    for numbers, covered in patch_coverages([(truth, catalog[i]) for i, truth in keys]):
        for number, one in zip(numbers.tolist(), covered, strict=True):
            sample_id, truth = keys[number]
            coverage[sample_id][truth] = one
    return coverage


def _predict_visual(
    sample: Sample, named: _InImage, coverage: Mapping[TrueConcept, np.ndarray]
) -> np.ndarray:
    if named is None:
        return np.ones(sample.n_visual, dtype=np.float32)
    if not named:
        return np.zeros(sample.n_visual, dtype=np.float32)
    return np.maximum.reduce([coverage[truth] for truth in named])


def _predict_text(sample: Sample, tokens: Sequence[np.ndarray]) -> np.ndarray:
    predicted = np.zeros(len(sample.tokens), dtype=np.float32)
    for places in tokens:
        predicted[places] = 1
    return predicted
