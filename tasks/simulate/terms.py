"""Read the terms that an explanation names, for visual tokens and for text tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from neuron_atlas.tasks.concepts.presence import words_of

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
        terms = {normalize_term(double or single) for double, single in _QUOTED.findall(clause)}
        if not terms:
            terms = {normalize_term(word) for word in words_of(clause) if word not in _STOP_WORDS}
        if of_image or not of_text:
            visual |= terms
        if of_text or not of_image:
            text |= terms
    return ExplanationTerms(frozenset(visual - {""}), frozenset(text - {""}))


@lru_cache(maxsize=65_536)
def normalize_term(words: str) -> str:
    """Return a term without case, punctuation and the plural ending of its last word."""
    term = " ".join(words_of(words))
    if term.endswith(("sses", "xes", "ches", "shes")):
        return term[:-2]
    return term[:-1] if len(term) > 3 and term.endswith("s") and not term.endswith("ss") else term
