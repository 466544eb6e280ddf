"""Name each cluster by the words that the texts of its samples have more often than other texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from neuron_atlas.tasks.artifacts import (
    DESCRIPTIONS,
    IMAGE_CLUSTER_NAMES,
    IMAGE_CLUSTERS,
    list_rows,
    read_table,
)
from neuron_atlas.tasks.concepts.presence import words_of
from neuron_atlas.tasks.concepts.sentence import can_be_quoted
from neuron_atlas.tasks.stop_words import STOP_WORDS

_MIN_SHARE = 0.01
"""Share of an image's patches from which it counts as an image of the cluster."""
_MIN_TEXTS = 3
"""Texts that a word needs, so that its odds say something."""
_MIN_Z = 3.0
"""Standard errors by which a characteristic word's log odds ratio exceeds 0."""
_MOST_WORDS = 3


def name_clusters(count: int, clusters: Sequence[Path], descriptions: Sequence[Path]) -> pa.Table:
    """Return the `image_cluster_names` rows of `count` clusters.

    A word's odds to be in a text are compared between the samples whose image has the cluster and
    all other samples with images: the log odds ratio over its standard error (Woolf 1955, with 1/2
    added to every count; Haldane 1956). clusters, descriptions: files of `image_clusters` and of
    `descriptions`.
    """
    ids, has, tokens = _read_clusters(count, clusters)
    words, texts = _read_words(ids, descriptions)
    z = _log_odds(has, texts)
    rows = []
    for cluster in range(count):
        best = np.argsort(-z[cluster], kind="stable")[:_MOST_WORDS]
        chosen = [words[one] for one in best.tolist() if z[cluster, one] >= _MIN_Z]
        number = f"cluster {cluster}"
        rows.append(
            {
                "cluster": cluster,
                "name": f"{', '.join(chosen)} ({number})" if chosen else number,
                "words": chosen,
                "n_samples": int(has[:, cluster].sum()),
                "share": tokens[cluster] / max(tokens.sum(), 1),
            }
        )
    return pa.Table.from_pylist(rows, schema=IMAGE_CLUSTER_NAMES.schema)


def _read_clusters(count: int, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the samples, int64; which clusters the image of each has, bool [samples, count]; and
    the visual tokens of each cluster, int64 [count]."""
    ids, rows = [np.zeros(0, np.int64)], [np.zeros((0, count), bool)]
    tokens = np.zeros(count, np.int64)
    for path in paths:
        table = read_table(path, IMAGE_CLUSTERS)
        counts = np.zeros((len(table), count), np.int64)
        for row, its in zip(counts, list_rows(table["clusters"]), strict=True):
            row += np.bincount(its, minlength=count)
        tokens += counts.sum(axis=0)
        ids.append(table["sample_id"].to_numpy())
        rows.append(counts >= np.maximum(1, _MIN_SHARE * counts.sum(axis=1, keepdims=True)))
    return np.concatenate(ids), np.concatenate(rows), tokens


def _read_words(ids: np.ndarray, paths: Sequence[Path]) -> tuple[list[str], csr_array]:
    """Return words that are in enough texts, sorted, and which texts have them, float64 [samples,
    words]."""
    found: dict[int, set[str]] = {}
    for path in paths:
        table = read_table(path, DESCRIPTIONS, ["sample_id", "text"])
        for sample_id, text in zip(*(column.to_pylist() for column in table.columns), strict=True):
            found[sample_id] = set(words_of(text)) - STOP_WORDS
    samples, names = [], []
    for row, sample_id in enumerate(ids.tolist()):
        its = sorted(filter(can_be_quoted, found[sample_id]))
        names += its
        samples += [row] * len(its)
    distinct, columns = np.unique(np.array(names, dtype=object), return_inverse=True)
    shape = (len(ids), len(distinct))
    has = csr_array((np.ones(len(samples)), (samples, columns)), shape)
    frequent = np.flatnonzero(has.sum(axis=0) >= _MIN_TEXTS)
    return [str(distinct[one]) for one in frequent], has[:, frequent]


def _log_odds(has: np.ndarray, texts: csr_array) -> np.ndarray:
    """Return the log odds ratio over its standard error, float64 [clusters, words].

    has: bool [samples, clusters]. texts: [samples, words].
    """
    inside = texts.T.dot(has.astype(np.float64)).T
    n_inside = has.sum(axis=0)[:, None]
    outside = np.asarray(texts.sum(axis=0))[None] - inside
    n_outside = len(has) - n_inside
    cells = [one + 0.5 for one in (inside, n_inside - inside, outside, n_outside - outside)]
    ratio = np.log(cells[0]) - np.log(cells[1]) - np.log(cells[2]) + np.log(cells[3])
    return ratio / np.sqrt(sum(1 / one for one in cells))
