"""How each neuron responds: how often, how concentrated, and to which words and sights.

A neuron's *favourites* are the words at which its text exemplars peak. Its *seen words* are those
that most texts of its visual exemplars have, and far more of them than of all texts: what these
images have in common, so far as their texts say it. An exemplar is visual or text by where its peak
is, so that no sample is both; else the words of texts that were chosen for a word would be found to
be seen. A neuron names the same concept in both where most text exemplars peak at one word, and
that is a seen word. This is blind to synonyms, and to what no text mentions.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse

from neuron_atlas.tasks.analyse.peaks import Peaks, read_peaks
from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.analyse.words import Lexicon
from neuron_atlas.tasks.artifacts import RESPONSES


def responses(
    traces: Path, moments: pa.Table, lexicon: Lexicon, settings: AnalyseSettings
) -> pa.Table:
    """The `responses` rows of one layer's neurons, those in `moments`."""
    neurons = moments["neuron"].to_numpy()
    peaks = read_peaks(traces)
    order = np.argsort(neurons)
    place = order[np.searchsorted(neurons, peaks.neuron, sorter=order)]
    strong = settings.strong * _scale(moments)[place]
    is_visual = (peaks.visual >= peaks.text) & (peaks.visual >= strong)
    is_text = (peaks.text > peaks.visual) & (peaks.text >= strong)
    n_visual, n_text = (
        np.bincount(place[kind], minlength=len(neurons)) for kind in (is_visual, is_text)
    )
    favourites, shares = _favourites(place, peaks, is_text, lexicon, n_text, settings)
    seen = _seen_words(place, peaks, is_visual, lexicon, n_visual, settings)
    known = np.minimum(n_visual, n_text) >= settings.min_exemplars
    same = [
        bool(share[0] >= settings.min_share) and words[0] in sights if both else None
        for words, share, sights, both in zip(favourites, shares, seen, known, strict=True)
    ]
    columns = {
        "layer": moments["layer"],
        "neuron": moments["neuron"],
        "active_visual": pa.array(_active(moments, "visual"), from_pandas=True),
        "active_text": pa.array(_active(moments, "text"), from_pandas=True),
        "concentration": pa.array(
            _mean_concentration(place, peaks, peaks.visual >= strong, len(neurons)),
            from_pandas=True,
        ),
        "n_visual": n_visual,
        "n_text": n_text,
        "favourites": favourites,
        "favourite_shares": shares,
        "seen_words": seen,
        "same_concept": pa.array(same, pa.bool_()),
    }
    return pa.table(columns).cast(RESPONSES.schema)


def _scale(moments: pa.Table) -> np.ndarray:
    """The highest activation [neurons] over visual and text tokens; inf where never positive."""
    highest = np.fmax(moments["max_visual"].to_numpy(), moments["max_text"].to_numpy())
    return np.where(highest > 0, highest, np.inf)


def _active(moments: pa.Table, role: str) -> np.ndarray:
    tokens = moments[f"n_{role}"].to_numpy()
    return np.where(tokens > 0, moments[f"positive_{role}"].to_numpy(), np.nan)


def _mean_concentration(
    place: np.ndarray, peaks: Peaks, chosen: np.ndarray, neurons: int
) -> np.ndarray:
    chosen = chosen & ~np.isnan(peaks.concentration)
    number = np.bincount(place[chosen], minlength=neurons)
    total = np.bincount(place[chosen], peaks.concentration[chosen], minlength=neurons)
    return np.divide(total, number, out=np.full(neurons, np.nan), where=number > 0)


def _favourites(
    place: np.ndarray,
    peaks: Peaks,
    chosen: np.ndarray,
    lexicon: Lexicon,
    number: np.ndarray,
    settings: AnalyseSettings,
) -> tuple[list[list[str]], list[np.ndarray]]:
    """The words at the text peaks of each neuron, and which share of them is at each."""
    token = lexicon.offsets[lexicon.rows(peaks.sample_id[chosen])] + peaks.text_place[chosen]
    counts = sparse.coo_array(
        (np.ones(chosen.sum(), dtype=np.int64), (place[chosen], lexicon.tokens[token])),
        shape=(len(number), len(lexicon.words)),
    ).tocsr()
    rows, words, found = _ranked(counts, counts.data, settings.favourites)
    shares = found / number[rows]
    bounds = list(pairwise(np.searchsorted(rows, np.arange(len(number) + 1))))
    return [lexicon.words[words[a:b]].tolist() for a, b in bounds], [shares[a:b] for a, b in bounds]


def _seen_words(
    place: np.ndarray,
    peaks: Peaks,
    chosen: np.ndarray,
    lexicon: Lexicon,
    number: np.ndarray,
    settings: AnalyseSettings,
) -> list[list[str]]:
    """The words that each neuron's visual exemplars have in common, the most telling first."""
    exemplars = sparse.csr_array(
        (
            np.ones(chosen.sum(), dtype=np.int32),
            (place[chosen], lexicon.rows(peaks.sample_id[chosen])),
        ),
        shape=(len(number), len(lexicon.samples)),
    )
    counts = (exemplars @ lexicon.present).tocsr()
    rows = np.repeat(np.arange(len(number)), np.diff(counts.indptr))
    share = counts.data / number[rows]
    lift = share * len(lexicon.samples) / lexicon.present.sum(axis=0)[counts.indices]
    is_seen = (share >= settings.min_share) & (lift >= settings.min_lift)
    is_seen &= number[rows] >= settings.min_exemplars
    telling = np.where(is_seen, share * np.log2(lift), 0.0)
    rows, words, _ = _ranked(counts, telling, settings.favourites)
    bounds = pairwise(np.searchsorted(rows, np.arange(len(number) + 1)))
    return [lexicon.words[words[start:stop]].tolist() for start, stop in bounds]


def _ranked(
    counts: sparse.csr_array, worth: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and count of the entries worth something, the `most` worthy of each row, the
    worthiest first and equal ones in the order of the alphabet."""
    kept = np.flatnonzero(worth > 0)
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))[kept]
    columns, worth = counts.indices[kept], worth[kept]
    order = np.lexsort((columns, -worth, rows))
    rank = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
    order = order[rank < most]
    return rows[order], columns[order], counts.data[kept][order]
