"""Measure how much a neuron's exemplars have in common, and how many meanings they show.

Needs no explanation and no label. The monosemanticity score is that of Pach et al. (arXiv
2504.02821): the mean similarity of pairs of samples, weighted by their activations. Their samples
are images with embeddings of an image encoder; here each exemplar has a vector of words: those
around its peak if it peaks in the text, those of its text if it peaks in the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from neuron_atlas.tasks.analyse.clusters import count_clusters
from neuron_atlas.tasks.analyse.peaks import Peaks
from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.analyse.words import Lexicon

_BYTES = 32
_NEIGHBOR = 0.5
"""Weight of the word before and of the one after a peak."""
_CHUNK_NEURONS = 256


def meanings(
    row: np.ndarray,
    peaks: Peaks,
    roles: Sequence[np.ndarray],
    scale: np.ndarray,
    lexicon: Lexicon,
    settings: AnalyseSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """Return monosemanticity and number of meanings, float64 [neurons] each.

    Both are over the strong exemplars of the role that has more of them, and NaN if there are fewer
    than `settings.min_exemplars`. Monosemanticity is 1 if all are alike, and about 0 if they are no
    more alike than any samples. row: neuron of each exemplar, ascending. roles: bool [exemplars]
    each, whether an exemplar is a strong visual or a strong text one. scale: [neurons].
    """
    neurons = len(scale)
    n_visual, n_text = (np.bincount(row[kind], minlength=neurons) for kind in roles)
    is_text_neuron = n_text >= n_visual
    chosen = np.where(is_text_neuron[row], roles[1], roles[0])
    count = np.bincount(row[chosen], minlength=neurons)
    chosen &= (count >= settings.min_exemplars)[row]
    row, is_text = row[chosen], is_text_neuron[row[chosen]]
    vectors = np.zeros((len(row), _BYTES * 8), np.float32)
    words = word_vectors(lexicon.words.tolist())
    samples = lexicon.rows(peaks.sample_id[chosen])
    token = lexicon.offsets[samples] + peaks.text_token[chosen]
    vectors[is_text] = _contexts(token[is_text], samples[is_text], lexicon, words)
    vectors[~is_text] = _texts(samples[~is_text], lexicon, words)
    activation = np.maximum(peaks.visual, peaks.text)[chosen] / scale[row]
    found = np.full((2, neurons), np.nan)
    bounds = np.searchsorted(row, np.arange(neurons + 1))
    (present,) = np.nonzero(np.diff(bounds))
    for start in range(0, len(present), _CHUNK_NEURONS):
        mine = present[start : start + _CHUNK_NEURONS]
        sizes = np.diff(bounds)[mine]
        is_filled = np.arange(sizes.max()) < sizes[:, None]
        places = np.minimum(bounds[mine][:, None] + np.arange(sizes.max()), len(row) - 1)
        its = np.where(is_filled[..., None], vectors[places], 0)
        weight = np.where(is_filled, activation[places], 0)
        found[0, mine] = monosemanticity(its, weight)
        found[1, mine] = count_clusters(
            its @ its.transpose(0, 2, 1),
            is_filled,
            settings.max_meanings,
            settings.min_exemplars,
            settings.min_agreement,
            settings.splits,
            settings.seed,
        )
    return found[0], found[1]


def monosemanticity(vectors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the mean similarity of pairs, weighted by the product of their weights, [neurons].

    vectors: float32 [neurons, exemplars, size], of length 1 or 0. weight: [neurons, exemplars].
    """
    weight = weight.astype(np.float64)
    squares = weight**2
    total = (weight[..., None] * vectors).sum(1)
    own = (squares * (vectors.astype(np.float64) ** 2).sum(2)).sum(1)
    pairs = weight.sum(1) ** 2 - squares.sum(1)
    return ((total**2).sum(1) - own) / np.where(pairs > 0, pairs, np.nan)


def word_vectors(words: Sequence[str]) -> np.ndarray:
    """Return a vector of signs for each word, float32 [words, 256]: the bits of its hash.

    Different words are nearly orthogonal, and a word's vector does not depend on other words.
    """
    digests = [hashlib.blake2b(word.encode(), digest_size=_BYTES).digest() for word in words]
    bits = np.unpackbits(np.frombuffer(b"".join(digests), np.uint8)).reshape(len(words), -1)
    return bits.astype(np.float32) * 2 - 1


def _contexts(
    token: np.ndarray, sample: np.ndarray, lexicon: Lexicon, words: np.ndarray
) -> np.ndarray:
    """Return vectors of the words at tokens and next to them, without what all tokens share."""
    found = words[lexicon.tokens[token]]
    for step in (-1, 1):
        place = np.clip(token + step, 0, max(len(lexicon.tokens) - 1, 0))
        is_inside = (place >= lexicon.offsets[sample]) & (place < lexicon.offsets[sample + 1])
        is_inside &= place != token
        found = found + _NEIGHBOR * words[lexicon.tokens[place]] * is_inside[:, None]
    share = np.bincount(lexicon.tokens, minlength=len(words)) / max(len(lexicon.tokens), 1)
    return _unit(found - (1 + 2 * _NEIGHBOR) * (share @ words))


def _texts(sample: np.ndarray, lexicon: Lexicon, words: np.ndarray) -> np.ndarray:
    """Return vectors of whole texts, rare words first, without what all texts share."""
    n_texts = lexicon.contains.shape[0]
    idf = np.log((1 + n_texts) / (1 + lexicon.contains.sum(axis=0)))
    weighted = (idf[:, None] * words).astype(np.float32)
    distinct, place = np.unique(sample, return_inverse=True)
    mean = (lexicon.contains.sum(axis=0) / max(n_texts, 1)) @ weighted
    return _unit(lexicon.contains[distinct] @ weighted - mean)[place]


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)
