"""Tables of a run for MLflow's page: explanations with scores, aggregates, failures, calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    FAITHFULNESS,
    SCORE_AGGREGATES,
    SCORES,
    read_table,
)
from neuron_atlas.tasks.report.controls import CONTROLS, strongest_control

if TYPE_CHECKING:
    from neuron_atlas.workflows.run.context import Context

Columns = dict[str, list[Any]]
"""A table by columns."""

MAX_ROWS = 20_000
"""Maximum rows of a table on MLflow's page. The Parquet files have all rows."""

_KEY = ["layer", "neuron", "explainer"]
_FIRST = [*_KEY, "type", "text", "score", "control", "strongest_control", "margin", "q"]
_AGGREGATES = ["explainer", "simulator", "tokens", "by", "group", "measure"]
_AGGREGATES += ["n", "undefined", "mean", "ci_low", "ci_high", "median"]


def explanation_table(
    explanations: Sequence[Path], scores: Sequence[Path], faithfulness: Sequence[Path] = ()
) -> Columns:
    """Return explanations with their score, strongest control and margin, the best margin first,
    and with their faithfulness and agreement if the run measured them.

    Of several simulators, an explanation has a row for each. Explanations without a margin come
    last. At most MAX_ROWS rows.
    """
    columns = [*_KEY, "type", "text", "status", "reason", "model", "attempts"]
    columns += ["tokens_in", "tokens_out", "cost"]
    explained = pl.DataFrame(read_table(list(explanations), EXPLANATIONS, columns))
    rows = explained.join(_scores(scores), on=_KEY, how="left")
    if faithfulness:
        found = read_table(list(faithfulness), FAITHFULNESS, [*_KEY, "faithfulness", "agreement"])
        rows = rows.join(pl.DataFrame(found).fill_nan(None), on=_KEY, how="left")
    rows = rows.sort("margin", descending=True, nulls_last=True, maintain_order=True)
    rest = [name for name in rows.columns if name not in _FIRST]
    return rows.select(*_FIRST, *rest).head(MAX_ROWS).to_dict(as_series=False)


def _scores(paths: Sequence[Path]) -> pl.DataFrame:
    columns = [*_KEY, "simulator", "tokens", "correlation", *CONTROLS, "margin", "q"]
    table = pl.DataFrame(read_table(list(paths), SCORES, columns)).filter(pl.col("tokens") == "all")
    found = [strongest_control(row) for row in table.select(*CONTROLS).to_dicts()]
    return table.select(
        *_KEY,
        "simulator",
        pl.col("correlation").fill_nan(None).alias("score"),
        pl.Series("control", [one and one.value for one in found], dtype=pl.Float64),
        pl.Series("strongest_control", [one and one.words for one in found], dtype=pl.String),
        pl.col("margin", "q").fill_nan(None),
    )


def score_table(aggregates: Sequence[Path]) -> Columns:
    """Return every measure of the scores over all neurons, by type and by layer."""
    table = pl.DataFrame(read_table(list(aggregates), SCORE_AGGREGATES, _AGGREGATES))
    return table.to_dict(as_series=False)


def failure_table(summary: Mapping[str, Any]) -> Columns:
    """Return the number of failed rows by table and status."""
    return {
        name: [failure[name] for failure in summary["failures"]]
        for name in ("table", "status", "count")
    }


def row_table(context: Context) -> Columns:
    """Return the number of rows of each table that the run wrote or found."""
    rows = [
        (manifest.stage, name, count)
        for manifest in context.done.values()
        for name, count in manifest.rows.items()
    ]
    return {name: [row[at] for row in rows] for at, name in enumerate(("stage", "table", "rows"))}


def call_table(spending: Mapping[str, float]) -> Columns:
    """Return the calls of each stage: requests, tokens, dollars, latencies and outcomes."""
    return {"measure": list(spending), "value": list(spending.values())}
