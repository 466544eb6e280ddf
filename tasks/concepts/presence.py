"""Find the words and concepts of each token: the link between words and activations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count

import numpy as np

from neuron_atlas.tasks.artifacts import CONCEPT_GRID
from neuron_atlas.tasks.artifacts.regions import Region, grid_shares
from neuron_atlas.tasks.samples.catalog import Sample, TrueConcept

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_APOSTROPHES = [ord("'"), 0x2019]
# The neurons of a task share their samples, so the results of a sample are cached.
_CACHED_SAMPLES = 8192
# Concepts whose coverage is computed together: their arrays fit into a core's cache.
_CONCEPTS_AT_A_TIME = 128


def words_of(text: str) -> list[str]:
    """Return the words of a text, casefolded, in order."""
    return [word.casefold() for word in _WORD.findall(text)]


@dataclass(frozen=True)
class WordIndex:
    """Words of some samples as numbers.

    names: the distinct words, casefolded. tokens: int32, the word of each text token, -1 for
    punctuation and spaces, of all samples in turn; token_offsets: where samples start in it, int64
    [samples + 1]. texts: int32, all words of each text, in order; text_offsets: likewise.
    """

    names: Sequence[str]
    tokens: np.ndarray
    token_offsets: np.ndarray
    texts: np.ndarray
    text_offsets: np.ndarray


def index_words(samples: Sequence[Sample]) -> WordIndex:
    """Number the words of the samples' texts, as `words_of` finds them, and of their tokens.

    A token that spans several words belongs to the first one.
    """
    # A separator ends every text, so no word spans two of them.
    text = "".join(f"{sample.text}\n" for sample in samples)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    is_word = _word_characters(codes)
    starts = np.flatnonzero(is_word & ~np.append(False, is_word[:-1]))
    spaced = np.where(is_word, codes, ord(" ")).astype("<u4").tobytes()
    numbers: dict[str, int] = defaultdict(count().__next__)
    words = map(str.casefold, spaced.decode("utf-32-le", "surrogatepass").split())
    texts = np.fromiter(map(numbers.__getitem__, words), np.int32, len(starts))
    text_ends = np.cumsum([0, *(len(sample.text) + 1 for sample in samples)])
    begins, ends, token_offsets = _token_spans(samples, text_ends[:-1])
    # The first word character at or after a token's begin, if it is in the token, decides.
    characters = np.append(np.flatnonzero(is_word), len(text))
    preceding = np.append(0, np.cumsum(is_word))
    first = characters[preceding[begins]]
    word = np.searchsorted(starts, first, side="right") - 1
    return WordIndex(
        list(numbers),
        np.where(first < ends, np.append(texts, -1)[word], np.int32(-1)),
        token_offsets,
        texts,
        np.searchsorted(starts, text_ends),
    )


@lru_cache(maxsize=_CACHED_SAMPLES)
def token_words(sample: Sample) -> tuple[str, ...]:
    """Return the casefolded word of each text token; "" for punctuation and spaces.

    A token that spans several words belongs to the first one.
    """
    index = index_words([sample])
    names = [*index.names, ""]
    return tuple(names[word] for word in index.tokens.tolist())


@lru_cache(maxsize=_CACHED_SAMPLES)
def patch_coverage(concept: TrueConcept, sample: Sample) -> np.ndarray:
    """Return the share, 0-1, of each visual token's patch that the concept covers: float32
    [n_visual]. The array is cached and therefore read-only."""
    ((_, (coverage,)),) = patch_coverages([(concept, sample)])
    coverage.flags.writeable = False
    return coverage


def patch_coverages(
    pairs: Sequence[tuple[TrueConcept, Sample]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield `patch_coverage` of many concepts in their samples, some with the same layout together.

    Yields the positions of some of the `pairs`, int64 [concepts], and their coverage, float32
    [concepts, n_visual].
    """
    by_layout: dict[_Layout, list[int]] = {}
    for number, (_, sample) in enumerate(pairs):
        layout = (sample.regions, sample.width, sample.height)
        by_layout.setdefault(layout, []).append(number)
    for layout, numbers in by_layout.items():
        for first in range(0, len(numbers), _CONCEPTS_AT_A_TIME):
            chosen = numbers[first : first + _CONCEPTS_AT_A_TIME]
            masks = np.stack([pairs[number][0].mask for number in chosen])
            yield np.array(chosen), _cover(masks, layout)


_Layout = tuple[tuple[Region, ...], int, int]
"""A sample's regions, and the width and height of its image, px."""


def _cover(masks: np.ndarray, layout: _Layout) -> np.ndarray:
    """Return the coverage, float32 [concepts, n_visual], of masks [concepts, grid, grid]."""
    regions, width, height = layout
    parts = [np.empty((len(masks), 0), dtype=np.float32)]
    for region in regions:
        top, bottom = region.top / height, region.bottom / height
        left, right = region.left / width, region.right / width
        rows = grid_shares(region.rows, top, bottom, CONCEPT_GRID)
        columns = grid_shares(region.columns, left, right, CONCEPT_GRID)
        # rows @ mask @ columns.T of all masks, as two products of flat matrices.
        upright = np.ascontiguousarray(masks.transpose(1, 0, 2), dtype=np.float64)
        narrow = rows @ upright.reshape(CONCEPT_GRID, -1)
        wide = narrow.reshape(-1, CONCEPT_GRID) @ columns.T
        covered = wide.reshape(region.rows, len(masks), region.columns).transpose(1, 0, 2)
        parts.append(covered.reshape(len(masks), region.tokens).astype(np.float32))
    return np.concatenate(parts, axis=1)


def _word_characters(codes: np.ndarray) -> np.ndarray:
    """Return which characters belong to words: letters, digits, and apostrophes between them."""
    table = np.zeros(128, dtype=bool)
    table[[code for code in range(128) if chr(code).isalnum()]] = True
    is_word = table[np.minimum(codes, 127)]
    (beyond,) = np.nonzero(codes >= len(table))
    if len(beyond):
        distinct, place = np.unique(codes[beyond], return_inverse=True)
        is_word[beyond] = np.array([chr(code).isalnum() for code in distinct.tolist()])[place]
    joins = np.isin(codes[1:-1], _APOSTROPHES) & is_word[:-2] & is_word[2:]
    is_word[1:-1] |= joins
    return is_word


def _token_spans(
    samples: Sequence[Sample], text_starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where each text token begins and ends, and where samples start among the tokens."""
    offsets = np.cumsum([0, *(len(sample.tokens) for sample in samples)])
    pieces = chain.from_iterable(sample.tokens for sample in samples)
    lengths = np.fromiter(map(len, pieces), np.int64, offsets[-1])
    ends = np.cumsum(lengths)
    before = np.append(0, ends)[offsets[:-1]]
    ends += np.repeat(text_starts - before, np.diff(offsets))
    # An empty piece is the end of a character that an earlier token began.
    return np.maximum(ends - lengths - (lengths == 0), 0), ends, offsets
