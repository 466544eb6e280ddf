"""Read the meanings of neurons that have several, and summarize how well they are explained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from neuron_atlas.tasks.artifacts import (
    MEANING_EXPLANATIONS,
    MEANING_SCORES,
    MEANINGS,
    read_table,
)
from neuron_atlas.tasks.report.inputs import LayerFiles, by_neuron, read_neurons

_KEY = ("explainer", "meaning")
_EXPLAINED = ["neuron", *_KEY, "text", "status", "reason", "n_exemplars"]
_SCORED = ["correlation", "ci_low", "ci_high", "whole", "gain", "gain_low", "gain_high"]


def read_meanings(
    files: LayerFiles, neurons: Collection[int]
) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Return the meanings of some neurons of a layer, by neuron and explainer, in their order.

    Each holds its row of `meaning_explanations`, `scores`: its rows of `meaning_scores`, and
    `sample_ids`: its exemplars.
    """
    explained = by_neuron(read_neurons(files, MEANING_EXPLANATIONS, neurons, _EXPLAINED))
    if not explained:
        return {}
    columns = ["neuron", *_KEY, "simulator", *_SCORED, "status", "reason"]
    scored = by_neuron(read_neurons(files, MEANING_SCORES, neurons, columns))
    members = by_neuron(read_neurons(files, MEANINGS, neurons))
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for neuron, rows in explained.items():
        for row in sorted(rows, key=lambda row: [row[name] for name in _KEY]):
            scores = [one for one in scored.get(neuron, ()) if _key(one) == _key(row)]
            its = [one["sample_id"] for one in members[neuron] if one["meaning"] == row["meaning"]]
            mine = found.setdefault(neuron, {}).setdefault(row["explainer"], [])
            mine.append(row | {"scores": scores, "sample_ids": its})
    return found


def summarize_meanings(tables: Mapping[str, Sequence[Path]]) -> list[dict[str, Any]]:
    """Return a row for each explainer and simulator that scored meanings.

    explainer, simulator. neurons: those with several meanings. meanings: with a score. mean and
    whole: mean scores of the meanings' explanations, and of the whole neurons' on the same samples.
    gain: mean of their difference. better: share of the meanings whose gain is above 0 with its
    interval.
    """
    keys = ["explainer", "simulator"]
    return _read_scores(tables).group_by(keys).agg(*_SUMMARY).sort(keys).to_dicts()


def meanings_metrics(tables: Mapping[str, Sequence[Path]]) -> dict[str, float | None]:
    """Return the means over all explainers and simulators, by the names of their metrics."""
    scores = _read_scores(tables)
    if scores.is_empty():
        return {}
    (row,) = scores.select(*_SUMMARY).to_dicts()
    return {
        "neurons": row["neurons"],
        "score": row["mean"],
        "score_of_whole": row["whole"],
        "gain": row["gain"],
    }


_SUMMARY = (
    pl.struct("layer", "neuron").n_unique().alias("neurons"),
    (pl.col("status") == "ok").sum().alias("meanings"),
    pl.col("correlation").mean().alias("mean"),
    pl.col("whole").mean(),
    pl.col("gain").mean(),
    (pl.col("gain_low") > 0).mean().alias("better"),
)


def _read_scores(tables: Mapping[str, Sequence[Path]]) -> pl.DataFrame:
    table = read_table(tables.get(MEANING_SCORES.name, ()), MEANING_SCORES)
    return pl.DataFrame(table).fill_nan(None)


def _key(row: Mapping[str, Any]) -> list[Any]:
    return [row[name] for name in _KEY]
