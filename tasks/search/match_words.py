"""Match the words of a query with explanations, and with the texts of each neuron's exemplars."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from neuron_atlas.tasks.artifacts import NO_SAMPLE, layer_of, read_rows, slot_values
from neuron_atlas.tasks.stop_words import STOP_WORDS

_KEY = ["layer", "neuron"]
_WORD = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}-][^\W_]+)*")
_EXEMPLARS = 20
"""Strongest exemplars whose texts are searched."""


def query_words(query: str) -> list[str]:
    """Return the casefolded words of a query, without stop words unless there are no others."""
    words = _WORD.findall(query.casefold())
    return [word for word in words if word not in STOP_WORDS] or words


def match_explanations(explanations: pl.LazyFrame, words: Sequence[str]) -> pl.DataFrame:
    """Return each explained neuron's match with some words: layer, neuron, match from 0 to 1.

    It is the share of the words that an explanation holds, where a word weighs the more the fewer
    explanations hold it (inverse document frequency). Of several explanations, the best one counts.
    """
    text = pl.col("text").str.to_lowercase()
    holds = [
        text.str.contains(rf"(?:^|\W){re.escape(word)}(?:\W|$)").alias(str(number))
        for number, word in enumerate(words)
    ]
    rows = explanations.filter(pl.col("status") == "ok").select(*_KEY, *holds).collect()
    found = rows.select(map(str, range(len(words)))).to_numpy().astype(np.float64)
    weights = np.log((1 + len(rows)) / (1 + found.sum(0))) + 1
    match = pl.Series("match", found @ (weights / weights.sum()))
    return rows.select(_KEY).with_columns(match).group_by(_KEY).agg(pl.col("match").max())


def match_texts(
    texts: pl.LazyFrame, exemplars: Sequence[Path], words: Sequence[str]
) -> pl.DataFrame:
    """Return every neuron's match with some words: layer, neuron, match up to 1.

    It is how much more often the texts of the neuron's strongest exemplars hold the words than all
    texts do: 0 for as often, 1 if all of them do. The words must follow each other; if they do in
    no text, a text with all of them counts. texts: the table `words`. exemplars: files of
    `exemplars`.
    """
    samples, holds = _holding(texts, words)
    base = holds.mean() if len(holds) else 0.0
    tables = []
    for path in exemplars:
        table = read_rows(path, ["neuron", "sample_id"])
        ids = slot_values(table, "sample_id")[:, :_EXEMPLARS]
        row = np.clip(np.searchsorted(samples, ids), 0, max(len(samples) - 1, 0))
        known = (ids != NO_SAMPLE) & (len(samples) > 0)
        known[known] = samples[row[known]] == ids[known]
        found = np.zeros(ids.shape)
        found[known] = holds[row[known]]
        share = found.sum(1) / np.maximum(known.sum(1), 1)
        match = (share - base) / (1 - base) if base < 1 else np.zeros(len(share))
        layer = np.full(len(table), layer_of(path.name))
        tables.append(
            pl.DataFrame({"layer": layer, "neuron": table["neuron"].to_numpy(), "match": match})
        )
    return pl.concat(tables).with_columns(
        pl.col("layer").cast(pl.Int16), pl.col("neuron").cast(pl.Int32)
    )


def _holding(texts: pl.LazyFrame, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sample_ids, ascending, and whether each text holds the words."""
    joined = pl.lit(" ") + pl.col("words").list.join(" ") + pl.lit(" ")
    phrase = joined.str.contains(f" {' '.join(words)} ", literal=True)
    each = pl.all_horizontal(joined.str.contains(f" {word} ", literal=True) for word in words)
    rows = texts.select("sample_id", phrase.alias("phrase"), each.alias("each")).collect()
    rows = rows.sort("sample_id")
    chosen = "phrase" if rows["phrase"].any() else "each"
    return rows["sample_id"].to_numpy(), rows[chosen].to_numpy().astype(np.float64)
