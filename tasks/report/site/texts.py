"""Choose the words by which the site finds a neuron that was not explained.

They are those at which its exemplars peak, and those that the exemplars' texts hold much more often
than all texts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from neuron_atlas.tasks.artifacts import (
    NO_SAMPLE,
    RESPONSES,
    WORDS,
    read_rows,
    read_table,
    slot_values,
)
from neuron_atlas.tasks.report.inputs import LayerFiles
from neuron_atlas.tasks.report.site.script import to_base64
from neuron_atlas.tasks.stop_words import STOP_WORDS

COUNT = 6
"""Words of a neuron at most."""
NO_WORD = 2**16 - 1
_AT_PEAKS = 3
_LEAST_SHARE = 0.2
"""Of the exemplars that peak at a word."""
_LEAST_MATCH = 0.3
"""How much more often the texts hold a word: 0 for as often as all texts, 1 if all hold it."""
_LEAST_EXEMPLARS = 3
_EXEMPLARS = 20
"""Strongest exemplars whose texts are read, as in `Atlas.search`."""


@dataclass(frozen=True)
class _Texts:
    """Which words each text holds. ids: sample_ids, ascending. held: float32 [texts, words]."""

    ids: np.ndarray
    words: Sequence[str]
    held: sparse.csr_array


def text_columns(
    neurons: Sequence[int], files: LayerFiles, texts: Sequence[Path]
) -> dict[str, str]:
    """Return the words of some neurons of a layer, as `words` (one a line) and `codes` (uint16
    [neurons, COUNT], lines, NO_WORD after the last word).

    texts: files of `words`.
    """
    found = _words_of(neurons, files, texts)
    counts: dict[str, int] = {}
    for some in found:
        for word in some:
            counts[word] = counts.get(word, 0) + 1
    ordered = sorted(counts, key=lambda word: (-counts[word], word))[:NO_WORD]
    lines = {word: line for line, word in enumerate(ordered)}
    codes = np.full((len(neurons), COUNT), NO_WORD, np.uint16)
    for row, some in enumerate(found):
        mine = [lines[word] for word in some if word in lines]
        codes[row, : len(mine)] = mine
    return {"words": "\n".join(ordered), "codes": to_base64(codes)}


def _words_of(neurons: Sequence[int], files: LayerFiles, texts: Sequence[Path]) -> list[list[str]]:
    """Return the words of each neuron, those at its peaks first."""
    peaks = _at_peaks(files)
    typical = _more_often(files, _read_texts(texts))
    found = []
    for neuron in neurons:
        words = dict.fromkeys([*peaks.get(neuron, ()), *typical.get(neuron, ())])
        found.append(list(words)[:COUNT])
    return found


def _at_peaks(files: LayerFiles) -> dict[int, list[str]]:
    """Return the words at which at least _LEAST_SHARE of a neuron's exemplars peak."""
    names = ["neuron", "top_words", "top_word_shares"]
    found = {}
    for row in read_table(files[RESPONSES.name], RESPONSES, names).to_pylist():
        pairs = zip(row["top_words"] or (), row["top_word_shares"] or (), strict=True)
        words = [word for word, share in pairs if share >= _LEAST_SHARE and _is_word(word)]
        found[row["neuron"]] = words[:_AT_PEAKS]
    return found


def _more_often(files: LayerFiles, texts: _Texts) -> dict[int, list[str]]:
    """Return the words that the texts of each neuron's exemplars hold more often than all, the most
    characteristic first, and of these the rarest."""
    if not len(texts.ids) or not len(texts.words):
        return {}
    base = texts.held.sum(axis=0, dtype=np.float64) / len(texts.ids)
    found: dict[int, list[str]] = {}
    for path in files["exemplars"]:
        table = read_rows(path, ["neuron", "sample_id", "peak"])
        ids, peak = (slot_values(table, name)[:, :_EXEMPLARS] for name in ("sample_id", "peak"))
        place = np.clip(np.searchsorted(texts.ids, ids), 0, len(texts.ids) - 1)
        known = (ids != NO_SAMPLE) & (np.nan_to_num(peak) > 0) & (texts.ids[place] == ids)
        row = np.nonzero(known)[0]
        shape = (len(table), len(texts.ids))
        shown = sparse.csr_array((np.ones(len(row), np.float32), (row, place[known])), shape=shape)
        counts = (shown @ texts.held).tocoo()
        share = counts.data / np.maximum(known.sum(1), 1)[counts.row]
        match = (share - base[counts.col]) / np.maximum(1 - base[counts.col], 1e-9)
        kept = (match >= _LEAST_MATCH) & (counts.data >= _LEAST_EXEMPLARS)
        rows, columns = counts.row[kept], counts.col[kept]
        neuron = table["neuron"].to_numpy()
        for at in np.lexsort((base[columns], -match[kept], rows)):
            words = found.setdefault(int(neuron[rows[at]]), [])
            if len(words) < COUNT:
                words.append(texts.words[columns[at]])
    return found


def _read_texts(paths: Sequence[Path]) -> _Texts:
    """Read the words that at least _LEAST_EXEMPLARS texts hold, without stop words."""
    table = pl.DataFrame(read_table(paths, WORDS, ["sample_id", "words"])).sort("sample_id")
    pairs = table.with_row_index("row").select("row", pl.col("words").alias("word")).explode("word")
    pairs = (
        pairs.drop_nulls()
        .unique()
        .filter(pl.col("word").str.contains(r"[^\W_]") & ~pl.col("word").is_in(list(STOP_WORDS)))
    )
    counted = pairs.group_by("word").len().filter(pl.col("len") >= _LEAST_EXEMPLARS).sort("word")
    words = counted["word"].to_list()
    codes = counted.select("word", pl.int_range(pl.len()).alias("code"))
    pairs = pairs.join(codes, on="word")
    ones = np.ones(len(pairs), np.float32)
    places = (pairs["row"].to_numpy(), pairs["code"].to_numpy())
    held = sparse.csr_array((ones, places), shape=(len(table), len(words)))
    return _Texts(table["sample_id"].to_numpy(), words, held)


def _is_word(word: str) -> bool:
    return any(one.isalnum() for one in word)
