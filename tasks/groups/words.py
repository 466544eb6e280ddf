"""Find the visual and the function words of a text, token by token."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuron_atlas.tasks.concepts.presence import token_words
from neuron_atlas.tasks.groups.naming import singular
from neuron_atlas.tasks.samples.catalog import Sample

FUNCTION_WORDS = frozenset(
    (Path(__file__).parent / "function_words.txt").read_text(encoding="utf-8").split()
)
"""English words that carry grammar more than content."""


@dataclass(frozen=True)
class TokenClasses:
    """Kinds of a text's tokens: bool [text tokens].

    visual: a word that names something in the image, where the text first has it; later ones can be
    copied from the text. function: a function word. other: no visual word, first or later.
    """

    visual: np.ndarray
    function: np.ndarray
    other: np.ndarray


def classify_tokens(sample: Sample, visual_words: Collection[str] | None) -> TokenClasses:
    """Return the classes of the tokens of a sample's text.

    visual_words: casefolded words for what is in the image; None if that is not known: all content
    words then count as visual.
    """
    words = token_words(sample)
    is_function = np.array([word in FUNCTION_WORDS for word in words], bool)
    if visual_words is None:
        is_visual = np.array([bool(word) for word in words], bool) & ~is_function
    else:
        is_visual = np.array(
            [word in visual_words or singular(word) in visual_words for word in words], bool
        )
    return TokenClasses(
        visual=is_visual & _is_first(words),
        function=is_function & ~is_visual,
        other=~is_visual,
    )


def _is_first(words: tuple[str, ...]) -> np.ndarray:
    """Return whether each token is of the first occurrence of its word; a word may have several
    tokens in a row."""
    first = np.zeros(len(words), bool)
    seen: set[str] = set()
    before = ""
    for place, word in enumerate(words):
        first[place] = word not in seen or (word == before and bool(word) and first[place - 1])
        seen.add(word)
        before = word
    return first
