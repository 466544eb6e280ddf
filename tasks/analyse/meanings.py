"""Measure how much a neuron's exemplars have in common, and how many meanings they show.

Needs no explanation and no label. The monosemanticity score is that of Pach et al. (arXiv
2504.02821): the mean similarity of pairs of samples, weighted by their activations. Their samples
are images with embeddings of an image encoder. Here each exemplar has a vector of its peak: the
subject's own embedding of the patch if it peaks in the image, the words around it if it peaks in
the text.

Meanings are clusters of the same exemplars (`find_clusters`). For them, words that the texts use in
the same places are alike: "small" and "large", or names of colors, are one meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import sparse

from neuron_atlas.tasks.analyse.clusters import find_clusters
from neuron_atlas.tasks.analyse.peaks import Peaks
from neuron_atlas.tasks.analyse.seen import SeenPatches
from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.analyse.words import Lexicon

_BYTES = 32
_NEIGHBOR = 0.5
"""Weight of the word before and of the one after a peak."""
_CHUNK_NEURONS = 256
_MAX_SHARED = 0.5
"""Share of texts with words of two groups, that both of them reach if they are not apart."""
_ROUNDING = 1e-5
_CHANCE_PLACES = 1000
"""Random places that show what exemplars would have in common by chance."""


def meanings(
    row: np.ndarray,
    peaks: Peaks,
    roles: Sequence[np.ndarray],
    scale: np.ndarray,
    lexicon: Lexicon,
    seen: SeenPatches,
    settings: AnalyseSettings,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return monosemanticity and number of meanings, float64 [neurons] each, and the meaning of
    each exemplar, int8 [exemplars].

    The first two are over the strong exemplars of the role that has more of them, and NaN if there
    are fewer than `settings.min_exemplars`. Monosemanticity is 1 if all are alike, and about 0 if
    they are no more alike than any samples. The meaning of an exemplar is 0 if it has none: it is
    not among these, or the neuron has only one. row: neuron of each exemplar, ascending. roles:
    bool [exemplars] each, whether an exemplar is a strong visual or a strong text one. scale:
    [neurons]. seen: patches of the strong visual exemplars of neurons that have more of these.
    """
    neurons = len(scale)
    n_visual, n_text = (np.bincount(row[kind], minlength=neurons) for kind in roles)
    is_text_neuron = n_text >= n_visual
    found = np.full((2, neurons), np.nan)
    meaning = np.zeros(len(row), np.int8)
    words = word_vectors(lexicon.words.tolist())
    similar = _similar_words(lexicon, words)
    alike_words = _unit(similar - _shares(lexicon) @ similar)
    for is_text, of_role in ((False, roles[0]), (True, roles[1])):
        count = n_text if is_text else n_visual
        is_chosen = (is_text_neuron == is_text) & (count >= settings.min_exemplars)
        (chosen,) = np.nonzero(of_role & is_chosen[row])
        if not len(chosen):
            continue
        samples = lexicon.rows(peaks.sample_id[chosen])
        token = lexicon.offsets[samples] + peaks.text_token[chosen]
        if is_text:
            vectors = _contexts(token, samples, lexicon, words)
            alike = _contexts(token, samples, lexicon, similar)
            chance = _chance_contexts(lexicon, similar, settings.seed)
        else:
            vectors = alike = seen.at(peaks.sample_id[chosen], peaks.visual_token[chosen])
            chance = seen.chance
        activation = np.maximum(peaks.visual, peaks.text)[chosen] / scale[row[chosen]]
        bounds = np.searchsorted(row[chosen], np.arange(neurons + 1))
        (present,) = np.nonzero(np.diff(bounds))
        for start in range(0, len(present), _CHUNK_NEURONS):
            mine = present[start : start + _CHUNK_NEURONS]
            sizes = np.diff(bounds)[mine]
            is_filled = np.arange(sizes.max()) < sizes[:, None]
            places = np.minimum(bounds[mine][:, None] + np.arange(sizes.max()), len(chosen) - 1)
            its = np.where(is_filled[..., None], vectors[places], 0)
            weight = np.where(is_filled, activation[places], 0)
            found[0, mine] = monosemanticity(its, weight)
            its = np.where(is_filled[..., None], alike[places], 0)
            are_apart = partial(_are_apart, samples, token, places, is_filled, lexicon, alike_words)
            labels = find_clusters(its, is_filled, chance, settings, are_apart if is_text else None)
            found[1, mine] = np.maximum(labels.max(1), 1)
            meaning[chosen[places[is_filled]]] = labels[is_filled]
    return found[0], found[1], meaning


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


def _similar_words(lexicon: Lexicon, words: np.ndarray) -> np.ndarray:
    """Return vectors like `words`, in which words that have the same neighbors are alike.

    Each is the sum of the word's own vector and, equally long, the mean vector of the words before
    and after it in all texts, without what all words share.
    """
    n, tokens = len(words), lexicon.tokens
    is_last = np.zeros(len(tokens), bool)
    is_last[lexicon.offsets[1:][np.diff(lexicon.offsets) > 0] - 1] = True
    (here,) = np.nonzero(~is_last)
    pairs = (np.ones(len(here), np.float32), (tokens[here], tokens[here + 1]))
    follows = sparse.coo_array(pairs, shape=(n, n)).tocsr()
    # The other order of bits separates the words before from those after.
    sides = follows @ words, follows.T @ words[:, ::-1]
    count = np.maximum(np.bincount(tokens, minlength=n), 1)[:, None]
    context = sum(sides) / count
    share = _shares(lexicon)
    return (words + np.sqrt(words.shape[1]) * _unit(context - share @ context)).astype(np.float32)


def _shares(lexicon: Lexicon) -> np.ndarray:
    """Return the share of each word among all tokens, float64 [words]."""
    counts = np.bincount(lexicon.tokens, minlength=len(lexicon.words))
    return counts / max(len(lexicon.tokens), 1)


def _drawn(n: int, seed: int) -> np.ndarray:
    """Return up to _CHANCE_PLACES of n places, drawn with a seed."""
    return np.random.default_rng(seed).permutation(n)[:_CHANCE_PLACES]


def _are_apart(
    samples: np.ndarray,
    token: np.ndarray,
    exemplars: np.ndarray,
    is_filled: np.ndarray,
    lexicon: Lexicon,
    words: np.ndarray,
    number: int,
    groups: np.ndarray,
) -> bool:
    """Return whether, of any two groups, one has mostly texts without a word like the other's.

    A word is like those of a group if it is as close to their center as half of them. samples,
    token: text and peak of each exemplar of all neurons. exemplars, is_filled: [neurons, slots].
    words: unit vectors. number: of the neuron. groups: bool [k, slots].
    """
    mine = exemplars[number]
    peak_words = words[lexicon.tokens[token[mine]]]
    centers = _unit(groups.astype(np.float32) @ peak_words)
    least = [np.median(peak_words[its] @ one) for its, one in zip(groups, centers, strict=True)]
    is_like = words @ centers.T >= np.array(least) - _ROUNDING
    has = (lexicon.contains[samples[mine]] @ is_like.astype(np.int32)) > 0
    share = np.array([has[its].mean(0) for its in groups])
    np.fill_diagonal(share, 0)
    return bool(np.minimum(share, share.T).max() < _MAX_SHARED)


def _chance_contexts(lexicon: Lexicon, words: np.ndarray, seed: int) -> np.ndarray:
    token = _drawn(len(lexicon.tokens), seed)
    sample = np.searchsorted(lexicon.offsets, token, side="right") - 1
    return _contexts(token, sample, lexicon, words)


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
    share = _shares(lexicon)
    return _unit(found - (1 + 2 * _NEIGHBOR) * (share @ words))


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)
