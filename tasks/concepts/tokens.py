"""What formulas say about the tokens of some samples: words, neighbours, sentences and areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.concepts.formula import AREAS, SENTENCES
from neuron_atlas.tasks.concepts.presence import index_words
from neuron_atlas.tasks.concepts.sentence import can_be_quoted
from neuron_atlas.tasks.samples.catalog import Sample

_SENTENCE_ENDS = ".!?"


@dataclass(frozen=True)
class TextTokens:
    """Text tokens of some samples in turn.

    names: the distinct words and punctuation marks, casefolded. offsets: where samples start, int64
    [samples + 1]. word, after, before: int32 [tokens], the token's word, the word before it and the
    one after it in the sample, as numbers in `names`; -1 for none. sentence: int32 [tokens], 0 for
    the sample's first sentence; -1 after the last of SENTENCES.
    """

    names: Sequence[str]
    offsets: np.ndarray
    word: np.ndarray
    after: np.ndarray
    before: np.ndarray
    sentence: np.ndarray


def text_tokens(samples: Sequence[Sample]) -> TextTokens:
    """Return the text tokens of some samples. All tokens of a word have the same neighbours."""
    index = index_words(samples)
    word, offsets = index.tokens.astype(np.int32), index.token_offsets
    numbers = {name: number for number, name in enumerate(index.names)}
    pieces = [piece for sample in samples for piece in sample.tokens]
    starts = np.append(True, word[1:] != word[:-1])[: len(word)]
    ends_sentence = np.zeros(len(word), bool)
    for place in np.flatnonzero(word < 0).tolist():
        mark = pieces[place].strip()
        starts[place] = True
        if can_be_quoted(mark):
            word[place] = numbers.setdefault(mark.casefold(), len(numbers))
            ends_sentence[place] = mark[-1] in _SENTENCE_ENDS
    starts |= np.fromiter((not piece[:1].isalnum() for piece in pieces), bool, len(pieces))
    first = np.zeros(len(word), bool)
    first[offsets[:-1][np.diff(offsets) > 0]] = True
    starts |= first
    # Neighbours are those of the word, without the tokens that belong to none.
    begins = np.flatnonzero(starts & (word >= 0))
    unit = np.searchsorted(begins, np.arange(len(word)), side="right")
    sample = np.repeat(np.arange(len(samples)), np.diff(offsets))
    of_unit = np.concatenate([[-1], word[begins], [-1]])
    in_sample = np.concatenate([[-1], sample[begins], [-1]])
    has_word = word >= 0
    previous = np.maximum(unit - has_word, 0)
    after = np.where(in_sample[previous] == sample, of_unit[previous], -1)
    before = np.where(in_sample[unit + 1] == sample, of_unit[unit + 1], -1)
    ended = np.cumsum(ends_sentence) - ends_sentence
    at_start = ended[np.minimum(offsets[:-1], max(len(word) - 1, 0))] if len(word) else ended
    number = ended - np.repeat(at_start, np.diff(offsets)) if len(word) else ended
    return TextTokens(
        list(numbers),
        offsets,
        word,
        after.astype(np.int32),
        before.astype(np.int32),
        np.where(number < len(SENTENCES), number, -1).astype(np.int32),
    )


def image_areas(sample: Sample) -> np.ndarray:
    """Return which visual tokens are in each of AREAS: bool [areas, n_visual]."""
    return _areas(sample.regions, sample.width, sample.height)


@lru_cache(maxsize=1024)
def _areas(regions: tuple[Region, ...], width: int, height: int) -> np.ndarray:
    parts = [np.zeros((len(AREAS), 0), bool)]
    for region in regions:
        # The size is that of the first image; another one is taken to be what its region covers.
        whole = region.image == 0 and width > 0 and height > 0
        box = (0.0, 0.0, width, height) if whole else (0.0, 0.0, region.right, region.bottom)
        x, y = (
            (np.arange(n) + 0.5) / n * (stop - start) + start
            for n, start, stop in (
                (region.columns, region.left, region.right),
                (region.rows, region.top, region.bottom),
            )
        )
        x, y = x / box[2], y / box[3]
        one_x = (region.right - region.left) / region.columns / box[2]
        one_y = (region.bottom - region.top) / region.rows / box[3]
        y, x = (one.ravel() for one in np.meshgrid(y, x, indexing="ij"))
        edges = [y < one_y, y > 1 - one_y, x < one_x, x > 1 - one_x]
        halves = [y < 0.5, y > 0.5, x < 0.5, x > 0.5]
        outer_x, outer_y = np.abs(x - 0.5) > 0.25, np.abs(y - 0.5) > 0.25
        quarters = [vertical & across for vertical in halves[:2] for across in halves[2:]]
        parts.append(
            np.stack(
                [
                    np.ones(len(x), bool),
                    *edges,
                    outer_x & outer_y,
                    ~outer_x & ~outer_y,
                    *halves,
                    *quarters,
                ]
            )
        )
    areas = np.concatenate(parts, axis=1)
    areas.flags.writeable = False
    return areas
