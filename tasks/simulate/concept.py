"""The offline simulator: the words of an explanation, turned back into the tokens they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from neuron_atlas.tasks.concepts.presence import patch_coverage, token_words, words_of
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.samples.catalog import Catalog, Sample, TrueConcept
from neuron_atlas.tasks.simulate.simulator import (
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

# Single quotes count where they do not stand within a word, as the apostrophe of "isn't" does.
_QUOTED = re.compile(
    r"[\"\u201c\u00ab]([^\"\u201d\u00bb]+)[\"\u201d\u00bb]"
    r"|(?<!\w)['\u2018]([^'\u2018\u2019]+)['\u2019](?!\w)"
)
_ABBREVIATIONS = re.compile(r"\b(?:e\.\s?g|i\.\s?e)\.,?", re.IGNORECASE)
_DENIED = re.compile(
    r"\b(?:but\s+)?(?:not|never|rather than|except|excluding|without)\b[^,;.]*", re.IGNORECASE
)
_FIGURES = re.compile(r"\([^)]*\)")
_CLAUSE = re.compile(r";|\.(?:\s|$)|,? and the (?=words?\b|tokens?\b|text\b)")
_OF_TEXT = re.compile(r"\b(words?|tokens?|texts?|mentions?|phrases?|names?)\b", re.IGNORECASE)
_OF_IMAGE = re.compile(
    r"\b(images?|regions?|patch(?:es)?|pictures?|pixels?|areas?|shows?|visual(?:ly)?)\b",
    re.IGNORECASE,
)
_EMPTY_WORDS = frozenset(
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
    """What an explanation says excites a neuron: terms for visual tokens, terms for text tokens."""

    visual: frozenset[str]
    text: frozenset[str]


@dataclass(frozen=True)
class ConceptSimulator(Simulator):
    """Predicts 1 where a token carries a concept that the explanation names, else 0.

    For visual tokens it is the coverage of the true concept; in a source without ground truth, a
    sample whose text has the word is taken to show it everywhere.
    """

    name: str = "concept"

    def simulate(
        self,
        questions: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: Calls,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See Simulator. An explanation that names nothing predicts 0 everywhere."""
        claims = {said: read_terms(said) for said in {asked.explanation for asked in questions}}
        return [
            _predict(claims[asked.explanation], asked.sample_id, catalog) for asked in questions
        ]


def read_terms(explanation: str) -> ExplanationTerms:
    """The terms that an explanation names, by the role its clause speaks of.

    Quoted terms are taken as they stand; in a clause without quotes, its words less the empty
    ones. A clause that speaks of neither images nor words is about both. What is denied ("but not
    blue ones") and figures in parentheses are not read.

    >>> claim = read_terms('Image regions that show "red"; the word "circle" in the text.')
    >>> sorted(claim.visual), sorted(claim.text)
    (['red'], ['circle'])
    """
    visual: set[str] = set()
    text: set[str] = set()
    said = _ABBREVIATIONS.sub("", _FIGURES.sub("", explanation))
    for clause in _CLAUSE.split(_DENIED.sub("", said)):
        outside = _QUOTED.sub("", clause)
        of_image = _OF_IMAGE.search(outside) is not None
        of_text = _OF_TEXT.search(outside) is not None
        terms = {_term(double or single) for double, single in _QUOTED.findall(clause)}
        if not terms:
            terms = {_term(word) for word in words_of(clause) if word not in _EMPTY_WORDS}
        if of_image or not of_text:
            visual |= terms
        if of_text or not of_image:
            text |= terms
    return ExplanationTerms(frozenset(visual - {""}), frozenset(text - {""}))


def _predict(claim: ExplanationTerms, sample_id: int, catalog: Catalog) -> Prediction:
    # A term of several words names each token of any of them.
    words = frozenset(_term(word) for term in claim.text for word in term.split())
    return Prediction(
        visual=_visual(claim.visual, catalog[sample_id], catalog.concepts(sample_id)),
        text=_text(words, catalog[sample_id]),
        estimator="presence",
    )


@lru_cache(maxsize=65_536)
def _term(words: str) -> str:
    """A term without case, punctuation or the plural ending of its last word."""
    said = " ".join(words_of(words))
    if said.endswith(("sses", "xes", "ches", "shes")):
        return said[:-2]
    return said[:-1] if len(said) > 3 and said.endswith("s") and not said.endswith("ss") else said


def _visual(terms: frozenset[str], sample: Sample, truths: Sequence[TrueConcept]) -> np.ndarray:
    predicted = np.zeros(sample.n_visual, dtype=np.float32)
    if truths:
        for truth in truths:
            if terms & {_term(name) for name in (truth.name, *truth.words)}:
                predicted = np.maximum(predicted, patch_coverage(truth, sample))
    elif any(f" {term} " in f" {_plain(sample)} " for term in terms):
        predicted += 1
    return predicted


def _text(words: frozenset[str], sample: Sample) -> np.ndarray:
    return np.array([_term(word) in words for word in token_words(sample)], dtype=np.float32)


@lru_cache(maxsize=8192)
def _plain(sample: Sample) -> str:
    return " ".join(_term(word) for word in words_of(sample.text))
