"""Compute each neuron's responses: how often it is active, how concentrated, and at which words.

A neuron's *top words* are the words at which its text exemplars peak. Its *image words* are words
that most texts of its visual exemplars contain, and far more often than all texts do. They show
what these images have in common, as far as their texts mention it. An exemplar is visual or text by
the role of its peak, never both: otherwise, a word that text exemplars share would also count as
seen. A neuron has the same concept in both roles if most text exemplars peak at one word, and this
word is an image word. The method misses synonyms, and concepts that no text mentions.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
from scipy import sparse

from neuron_atlas.tasks.analyse.meanings import meanings
from neuron_atlas.tasks.analyse.peaks import Peaks, concentration, peaks_of
from neuron_atlas.tasks.analyse.seen import SeenPatches, visual_places
from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.analyse.words import Lexicon
from neuron_atlas.tasks.artifacts import MEANINGS, RESPONSES


def responses(
    exemplars: pa.Table,
    moments: pa.Table,
    lexicon: Lexicon,
    seen: SeenPatches,
    settings: AnalyseSettings,
) -> tuple[pa.Table, pa.Table]:
    """Return the `responses` and the `meanings` rows of one layer's neurons (those in `moments`),
    from their rows of `exemplars`. seen: patches at the places of `seen_places`."""
    neurons = moments["neuron"].to_numpy()
    peaks = peaks_of(exemplars)
    row, strong, is_visual, is_text = _strong(peaks, exemplars, moments, settings)
    n_visual, n_text = (
        np.bincount(row[kind], minlength=len(neurons)) for kind in (is_visual, is_text)
    )
    top_words, shares = _top_words(row, peaks, is_text, lexicon, n_text, settings)
    in_images = _image_words(row, peaks, is_visual, lexicon, n_visual, settings)
    alike, n_meanings, meaning = meanings(
        row, peaks, (is_visual, is_text), _scale(moments), lexicon, seen, settings
    )
    has_both = np.minimum(n_visual, n_text) >= settings.min_exemplars
    same = [
        bool(share[0] >= settings.min_share) and words[0] in image_words if enough else None
        for words, share, image_words, enough in zip(
            top_words, shares, in_images, has_both, strict=True
        )
    ]
    columns = {
        "layer": moments["layer"],
        "neuron": moments["neuron"],
        "positive_visual": pa.array(_active(moments, "visual"), from_pandas=True),
        "positive_text": pa.array(_active(moments, "text"), from_pandas=True),
        "concentration": pa.array(
            _mean_concentration(row, peaks, peaks.visual >= strong, lexicon, len(neurons)),
            from_pandas=True,
        ),
        "n_visual_exemplars": n_visual,
        "n_text_exemplars": n_text,
        "top_words": top_words,
        "top_word_shares": shares,
        "image_words": in_images,
        "same_concept": pa.array(same, pa.bool_()),
        "monosemanticity": pa.array(alike, from_pandas=True),
        "meanings": pa.array(n_meanings, from_pandas=True),
    }
    has_meaning = meaning > 0
    of_meanings = {
        "layer": moments["layer"].take(row[has_meaning]),
        "neuron": moments["neuron"].take(row[has_meaning]),
        "sample_id": peaks.sample_id[has_meaning],
        "meaning": meaning[has_meaning],
    }
    table = pa.table(of_meanings).cast(MEANINGS.schema)
    return pa.table(columns).cast(RESPONSES.schema), table


def seen_places(exemplars: pa.Table, moments: pa.Table, settings: AnalyseSettings) -> np.ndarray:
    """Return the patches that decide what visual neurons mean, as places, ascending: the peaks of
    the strong visual exemplars of the neurons that have more of these than strong text ones."""
    peaks = peaks_of(exemplars)
    row, _, is_visual, is_text = _strong(peaks, exemplars, moments, settings)
    n_visual, n_text = (
        np.bincount(row[kind], minlength=len(moments)) for kind in (is_visual, is_text)
    )
    chosen = is_visual & ((n_visual > n_text) & (n_visual >= settings.min_exemplars))[row]
    return np.unique(visual_places(peaks.sample_id[chosen], peaks.visual_token[chosen]))


def _strong(
    peaks: Peaks, exemplars: pa.Table, moments: pa.Table, settings: AnalyseSettings
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return of each exemplar the row of its neuron in `moments`, from which activation a token is
    strong, and whether the exemplar is a strong visual or a strong text one, by its peak."""
    neurons = moments["neuron"].to_numpy()
    order = np.argsort(neurons)
    row_of_exemplars = np.searchsorted(neurons, exemplars["neuron"].to_numpy(), sorter=order)
    row = order[row_of_exemplars][peaks.row]
    strong = settings.strong_share * _scale(moments)[row]
    is_visual = (peaks.visual >= peaks.text) & (peaks.visual >= strong)
    is_text = (peaks.text > peaks.visual) & (peaks.text >= strong)
    return row, strong, is_visual, is_text


def _scale(moments: pa.Table) -> np.ndarray:
    """Return the highest activation [neurons] over visual and text tokens; inf if none is
    positive."""
    highest = np.fmax(moments["max_visual"].to_numpy(), moments["max_text"].to_numpy())
    return np.where(highest > 0, highest, np.inf)


def _active(moments: pa.Table, role: str) -> np.ndarray:
    tokens = moments[f"n_{role}"].to_numpy()
    return np.where(tokens > 0, moments[f"positive_{role}"].to_numpy(), np.nan)


def _mean_concentration(
    row: np.ndarray, peaks: Peaks, chosen: np.ndarray, lexicon: Lexicon, neurons: int
) -> np.ndarray:
    n_visual = lexicon.n_visual[lexicon.rows(peaks.sample_id)]
    concentrated = concentration(peaks.visual_sum, peaks.visual_sum_sq, n_visual)
    chosen = chosen & ~np.isnan(concentrated)
    count = np.bincount(row[chosen], minlength=neurons)
    total = np.bincount(row[chosen], concentrated[chosen], minlength=neurons)
    return np.divide(total, count, out=np.full(neurons, np.nan), where=count > 0)


def _top_words(
    row: np.ndarray,
    peaks: Peaks,
    chosen: np.ndarray,
    lexicon: Lexicon,
    n_exemplars: np.ndarray,
    settings: AnalyseSettings,
) -> tuple[list[list[str]], list[np.ndarray]]:
    """Return the words at the text peaks of each neuron, and the share of the peaks at each
    word."""
    token = lexicon.offsets[lexicon.rows(peaks.sample_id[chosen])] + peaks.text_token[chosen]
    counts = sparse.coo_array(
        (np.ones(chosen.sum(), dtype=np.int64), (row[chosen], lexicon.tokens[token])),
        shape=(len(n_exemplars), len(lexicon.words)),
    ).tocsr()
    rows, words, n_peaks = _ranked(counts, counts.data, settings.top_words)
    shares = n_peaks / n_exemplars[rows]
    bounds = list(pairwise(np.searchsorted(rows, np.arange(len(n_exemplars) + 1))))
    return [lexicon.words[words[a:b]].tolist() for a, b in bounds], [shares[a:b] for a, b in bounds]


def _image_words(
    row: np.ndarray,
    peaks: Peaks,
    chosen: np.ndarray,
    lexicon: Lexicon,
    n_exemplars: np.ndarray,
    settings: AnalyseSettings,
) -> list[list[str]]:
    """Return the words that each neuron's visual exemplars have in common, by descending share *
    log2(lift)."""
    exemplars = sparse.csr_array(
        (
            np.ones(chosen.sum(), dtype=np.int32),
            (row[chosen], lexicon.rows(peaks.sample_id[chosen])),
        ),
        shape=(len(n_exemplars), len(lexicon.samples)),
    )
    counts = (exemplars @ lexicon.contains).tocsr()
    rows = np.repeat(np.arange(len(n_exemplars)), np.diff(counts.indptr))
    share = counts.data / n_exemplars[rows]
    lift = share * len(lexicon.samples) / lexicon.contains.sum(axis=0)[counts.indices]
    is_image_word = (share >= settings.min_share) & (lift >= settings.min_lift)
    is_image_word &= n_exemplars[rows] >= settings.min_exemplars
    weights = np.where(is_image_word, share * np.log2(lift), 0.0)
    rows, words, _ = _ranked(counts, weights, settings.top_words)
    bounds = pairwise(np.searchsorted(rows, np.arange(len(n_exemplars) + 1)))
    return [lexicon.words[words[start:stop]].tolist() for start, stop in bounds]


def _ranked(
    counts: sparse.csr_array, weights: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and count of the entries with positive weight: at most `limit` per row, by
    descending weight, then by column (alphabetically)."""
    positive = np.flatnonzero(weights > 0)
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))[positive]
    columns, weights = counts.indices[positive], weights[positive]
    order = np.lexsort((columns, -weights, rows))
    rank = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
    order = order[rank < limit]
    return rows[order], columns[order], counts.data[positive][order]
