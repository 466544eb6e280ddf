"""Find the words and concepts of each token: the link between words and activations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from neuron_atlas.tasks.artifacts import CONCEPT_GRID
from neuron_atlas.tasks.artifacts.regions import grid_shares
from neuron_atlas.tasks.samples.catalog import Sample, TrueConcept

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Return the words of a text, casefolded, in order."""
    return [match.group().casefold() for match in _WORD.finditer(text)]


# The neurons of a task share their samples, so the results of a sample are cached.
_CACHED_SAMPLES = 8192


@lru_cache(maxsize=_CACHED_SAMPLES)
def token_words(sample: Sample) -> tuple[str, ...]:
    """Return the casefolded word of each text token; "" for punctuation and spaces.

    A token that spans several words belongs to the first one.
    """
    words = [(m.start(), m.end(), m.group().casefold()) for m in _WORD.finditer(sample.text)]
    return tuple(
        next((word for start, stop, word in words if start < end and begin < stop), "")
        for begin, end in _spans(sample)
    )


@lru_cache(maxsize=_CACHED_SAMPLES)
def patch_coverage(concept: TrueConcept, sample: Sample) -> np.ndarray:
    """Return the share, 0-1, of each visual token's patch that the concept covers: float32
    [n_visual]. The array is cached and therefore read-only."""
    parts = [np.empty(0, dtype=np.float32)]
    for region in sample.regions:
        rows = grid_shares(
            region.rows, region.top / sample.height, region.bottom / sample.height, CONCEPT_GRID
        )
        columns = grid_shares(
            region.columns, region.left / sample.width, region.right / sample.width, CONCEPT_GRID
        )
        parts.append((rows @ concept.mask @ columns.T).ravel().astype(np.float32))
    coverage = np.concatenate(parts)
    coverage.flags.writeable = False
    return coverage


def _spans(sample: Sample) -> Iterator[tuple[int, int]]:
    position = 0
    for piece in sample.tokens:
        # An empty piece is the end of a character that an earlier token began.
        yield position - (not piece), position + len(piece)
        position += len(piece)
