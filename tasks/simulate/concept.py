"""Simulate offline: predict the tokens that an explanation's words name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from neuron_atlas.tasks.concepts.presence import patch_coverage, token_words, words_of
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog, Sample, TrueConcept
from neuron_atlas.tasks.simulate.simulator import (
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

# A single quote inside a word, as in "isn't", is an apostrophe.
_QUOTED = re.compile(
    r"[\"\u201c\u00ab]([^\"\u201d\u00bb]+)[\"\u201d\u00bb]"
    r"|(?<!\w)['\u2018]([^'\u2018\u2019]+)['\u2019](?!\w)"
)
_ABBREVIATIONS = re.compile(r"\b(?:e\.\s?g|i\.\s?e)\.,?", re.IGNORECASE)
_NEGATED = re.compile(
    r"\b(?:but\s+)?(?:not|never|rather than|except|excluding|without)\b[^,;.]*", re.IGNORECASE
)
_PARENTHESES = re.compile(r"\([^)]*\)")
_CLAUSE = re.compile(r";|\.(?:\s|$)|,? and the (?=words?\b|tokens?\b|text\b)")
_OF_TEXT = re.compile(r"\b(words?|tokens?|texts?|mentions?|phrases?|names?)\b", re.IGNORECASE)
_OF_IMAGE = re.compile(
    r"\b(images?|regions?|patch(?:es)?|pictures?|pixels?|areas?|shows?|visual(?:ly)?)\b",
    re.IGNORECASE,
)
_STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "by",
        "containing",
        "depicting",
        "etc",
        "for",
        "from",
        "has",
        "have",
        "image",
        "images",
        "in",
        "into",
        "is",
        "it",
        "its",
        "like",
        "mention",
        "mentions",
        "name",
        "names",
        "neuron",
        "object",
        "objects",
        "of",
        "on",
        "or",
        "part",
        "parts",
        "patch",
        "patches",
        "phrase",
        "phrases",
        "picture",
        "pictures",
        "pixel",
        "pixels",
        "region",
        "regions",
        "responds",
        "respond",
        "show",
        "showing",
        "shown",
        "shows",
        "such",
        "text",
        "texts",
        "that",
        "the",
        "these",
        "this",
        "to",
        "token",
        "tokens",
        "visual",
        "when",
        "where",
        "which",
        "with",
        "word",
        "words",
        "fires",
        "active",
        "activates",
        "especially",
        "areas",
        "area",
        "strongly",
    ]
)


@dataclass(frozen=True)
class ExplanationTerms:
    """Terms that an explanation names, for visual tokens and for text tokens."""

    visual: frozenset[str]
    text: frozenset[str]


@dataclass(frozen=True)
class ConceptSimulator(Simulator):
    """Simulator that predicts 1 for tokens with a concept that the explanation names, else 0.

    A visual token's prediction is the share that the true concept covers. In a source without
    ground truth, a named word in the sample's text counts as present in the whole image.
    """

    name: str = "concept"

    def simulate(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See Simulator. An explanation that names nothing predicts 0 everywhere."""
        terms = {text: read_terms(text) for text in {one.explanation for one in requests}}
        return [_predict(terms[one.explanation], one.sample_id, catalog) for one in requests]


def read_terms(explanation: str) -> ExplanationTerms:
    """Extract the terms that an explanation names, by the role that each clause is about.

    Quoted terms are used whole; a clause without quotes yields its words without stop words. A
    clause that mentions neither images nor words counts for both roles. Negated parts ("but not
    blue ones") and parentheses are ignored.

    >>> terms = read_terms('Image regions that show "red"; the word "circle" in the text.')
    >>> sorted(terms.visual), sorted(terms.text)
    (['red'], ['circle'])
    """
    visual: set[str] = set()
    text: set[str] = set()
    stripped = _ABBREVIATIONS.sub("", _PARENTHESES.sub("", explanation))
    for clause in _CLAUSE.split(_NEGATED.sub("", stripped)):
        unquoted = _QUOTED.sub("", clause)
        of_image = _OF_IMAGE.search(unquoted) is not None
        of_text = _OF_TEXT.search(unquoted) is not None
        terms = {_term(double or single) for double, single in _QUOTED.findall(clause)}
        if not terms:
            terms = {_term(word) for word in words_of(clause) if word not in _STOP_WORDS}
        if of_image or not of_text:
            visual |= terms
        if of_text or not of_image:
            text |= terms
    return ExplanationTerms(frozenset(visual - {""}), frozenset(text - {""}))


def _predict(terms: ExplanationTerms, sample_id: int, catalog: Catalog) -> Prediction:
    # A term with several words names the tokens of each of them.
    words = frozenset(_term(word) for term in terms.text for word in term.split())
    return Prediction(
        visual=_visual(terms.visual, catalog[sample_id], catalog.concepts(sample_id)),
        text=_text(words, catalog[sample_id]),
        estimator="presence",
    )


@lru_cache(maxsize=65_536)
def _term(words: str) -> str:
    """Return a term without case, punctuation and the plural ending of its last word."""
    term = " ".join(words_of(words))
    if term.endswith(("sses", "xes", "ches", "shes")):
        return term[:-2]
    return term[:-1] if len(term) > 3 and term.endswith("s") and not term.endswith("ss") else term


def _visual(terms: frozenset[str], sample: Sample, truths: Sequence[TrueConcept]) -> np.ndarray:
    predicted = np.zeros(sample.n_visual, dtype=np.float32)
    if truths:
        for truth in truths:
            if terms & {_term(name) for name in (truth.name, *truth.words)}:
                predicted = np.maximum(predicted, patch_coverage(truth, sample))
    elif any(f" {term} " in f" {_normalized_text(sample)} " for term in terms):
        predicted += 1
    return predicted


def _text(words: frozenset[str], sample: Sample) -> np.ndarray:
    return np.array([_term(word) in words for word in token_words(sample)], dtype=np.float32)


@lru_cache(maxsize=8192)
def _normalized_text(sample: Sample) -> str:
    return " ".join(_term(word) for word in words_of(sample.text))
