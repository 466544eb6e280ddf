"""Learn classes of words from texts: words that are used between the same neighbors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array
from scipy.spatial.distance import squareform

from neuron_atlas.tasks.concepts.sentence import can_be_quoted
from neuron_atlas.tasks.concepts.tokens import text_tokens
from neuron_atlas.tasks.samples.catalog import Sample, open_texts

_MAX_SAMPLES = 20_000
_MIN_COUNT = 5
"""Occurrences that a word needs, so that its neighbors say something about it."""
_MAX_WORDS = 1000
"""Most frequent words that are put into classes."""
_MAX_NEIGHBORS = 500
"""Most frequent words that count as neighbors on each side."""
_DISTANCES = (0.3, 0.6)
"""Mean cosine distances within a class, of narrow and of wide classes."""
_MAX_MEMBERS = 12
"""A class with more members would make no readable sentence."""


def read_word_classes(descriptions: tuple[Path, ...]) -> tuple[tuple[str, ...], ...]:
    """Return the word classes of the first 20,000 usable samples of some `descriptions`."""
    samples: list[Sample] = []
    for path in descriptions:
        samples += open_texts([path]).samples.values()
        if len(samples) >= _MAX_SAMPLES:
            break
    return tuple(learn_word_classes(samples[:_MAX_SAMPLES]))


def learn_word_classes(samples: Sequence[Sample]) -> list[tuple[str, ...]]:
    """Return classes of two or more words, sorted; a word may be in a narrow and a wide class.

    A word's vector holds the positive pointwise mutual information with its preceding and following
    words. Classes are clusters of these vectors by average linkage. Punctuation is in no class.
    """
    text = text_tokens(samples)
    is_first = np.append(True, np.diff(text.word) != 0) | np.append(True, np.diff(text.after) != 0)
    units = np.flatnonzero(is_first[: len(text.word)] & (text.word >= 0))
    counts = np.bincount(text.word[units], minlength=len(text.names))
    by_name = sorted(range(len(text.names)), key=lambda word: (-counts[word], text.names[word]))
    words = [
        word
        for word in by_name
        if counts[word] >= _MIN_COUNT
        and text.names[word][:1].isalnum()
        and can_be_quoted(text.names[word])
    ][:_MAX_WORDS]
    if len(words) < 2:
        return []
    vectors = np.concatenate(
        [
            _associations(text.word[units], side[units], words, by_name[:_MAX_NEIGHBORS])
            for side in (text.after, text.before)
        ],
        axis=1,
    )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms > 0, norms, 1)
    distances = np.round(np.clip(1 - vectors @ vectors.T, 0, 2), 6)
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    found = set()
    for most in _DISTANCES:
        labels = fcluster(tree, most, "distance")
        for label in np.flatnonzero(np.bincount(labels) > 1).tolist():
            members = [text.names[words[one]] for one in np.flatnonzero(labels == label).tolist()]
            if len(members) <= _MAX_MEMBERS:
                found.add(tuple(sorted(members)))
    return sorted(found)


def _associations(
    word: np.ndarray, neighbor: np.ndarray, words: Sequence[int], neighbors: Sequence[int]
) -> np.ndarray:
    """Return positive pointwise mutual information, float64 [words, neighbors]; no neighbor is one
    as well."""
    size = int(max(word.max(initial=0), neighbor.max(initial=0))) + 2
    rows, columns = np.full(size, -1), np.full(size, -1)
    rows[words] = np.arange(len(words))
    columns[neighbors] = np.arange(len(neighbors))
    columns[-1] = len(neighbors)
    row, column = rows[word], columns[neighbor]
    chosen = (row >= 0) & (column >= 0)
    shape = (len(words), len(neighbors) + 1)
    ones = np.ones(int(chosen.sum()))
    joint = csr_array((ones, (row[chosen], column[chosen])), shape).toarray()
    expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True) / max(joint.sum(), 1)
    ratio = np.divide(joint, expected, out=np.ones(shape), where=joint > 0)
    return np.maximum(np.log(ratio), 0)
