"""Which tokens of a sample carry which concept: the link between words and activations."""

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
    """The words of a text, casefolded, in order."""
    return [match.group().casefold() for match in _WORD.finditer(text)]


# The neurons of a task share their samples, so what a sample carries is worked out once.
_SAMPLES_KEPT = 8192


@lru_cache(maxsize=_SAMPLES_KEPT)
def token_words(sample: Sample) -> tuple[str, ...]:
    """The word that each text token belongs to, casefolded; empty for punctuation and spaces.

    A token that spans several words belongs to the first.
    """
    words = [(m.start(), m.end(), m.group().casefold()) for m in _WORD.finditer(sample.text)]
    return tuple(
        next((word for start, stop, word in words if start < end and begin < stop), "")
        for begin, end in _spans(sample)
    )


@lru_cache(maxsize=_SAMPLES_KEPT)
def patch_coverage(concept: TrueConcept, sample: Sample) -> np.ndarray:
    """How much of each visual token's patch the concept covers, float32 [n_visual] in 0-1.

    The array is shared between callers, and so cannot be written to.
    """
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
        # A piece without characters is the rest of one that an earlier token began.
        yield position - (not piece), position + len(piece)
        position += len(piece)
