"""Compare the jobs of a sweep in one table, by job, layer, explainer and simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import ALL_LAYERS, TYPES
from neuron_atlas.tasks.report.controls import CONTROLS, strongest_control

MEASURES = {
    "correlation": "correlation",
    "control_other": "correlation_of_other_explanation",
    "control_empty": "correlation_of_empty_explanation",
    "control_blind": "correlation_without_explanation",
    "margin": "margin_over_control",
    "beats_control": "share_that_beat_control",
}
"""Compared measures of `score_aggregates`, with their names in the table."""
_ENDS = ("", "_low", "_high")
_RULE = "paper"


@dataclass(frozen=True)
class JobTables:
    """One job's tables for the comparison.

    setting: the job's choices except layers, in words. choices: all of its choices, by the path of
    the setting. shares, aggregates: its `type_shares` and `score_aggregates`. page: path of its
    page, relative to the folder of the comparison.
    """

    name: str
    setting: str
    choices: Mapping[str, str]
    shares: pa.Table
    aggregates: pa.Table
    page: str


def compare_jobs(jobs: Sequence[JobTables]) -> pl.DataFrame:
    """Return a row for each job, layer (null for all layers of a job), explainer and simulator.

    Columns: job, setting, layer, neurons, the share of each type by the paper's rule, explainer,
    simulator, scored (number of neurons), and for each of MEASURES its mean over neurons and the
    bounds of the 95 % interval (_low, _high). strongest_control: name of the control with the
    highest mean; correlation_of_control: that mean, with its bounds. Measures are null in layers
    without a score.
    """
    return pl.concat([_compare_one(job) for job in jobs])


def _compare_one(job: JobTables) -> pl.DataFrame:
    shares = pl.DataFrame(job.shares).filter(pl.col("rule") == _RULE)
    layer = pl.col("layer").cast(pl.Int64)
    shares = shares.with_columns(
        pl.when(layer == ALL_LAYERS).then(None).otherwise(layer).alias("layer")
    )
    types = shares.group_by("layer").agg(
        pl.col("total").first().cast(pl.Int64).alias("neurons"),
        *(
            pl.col("share").filter(pl.col("type") == name).first().alias(f"{name}_share")
            for name in TYPES
        ),
    )
    joined = types.join(_scores(job.aggregates), on="layer", how="left", nulls_equal=True)
    return joined.sort("layer", "explainer", "simulator", nulls_last=True).select(
        pl.lit(job.name).alias("job"), pl.lit(job.setting).alias("setting"), pl.all()
    )


def _scores(aggregates: pa.Table) -> pl.DataFrame:
    """Return a row for each layer, explainer and simulator with a score over all tokens."""
    frame = pl.DataFrame(aggregates).filter(
        pl.col("tokens") == "all", pl.col("by").is_in(["all", "layer"])
    )
    frame = frame.with_columns(pl.col("group").cast(pl.Int64, strict=False).alias("layer"))
    columns = []
    for measure, name in MEASURES.items():
        mine = pl.col("measure") == measure
        for column, end in zip(("mean", "ci_low", "ci_high"), _ENDS, strict=True):
            columns.append(pl.col(column).filter(mine).first().alias(f"{name}{end}"))
    scored = pl.col("n").filter(pl.col("measure") == "correlation").first().alias("scored")
    found = frame.group_by("layer", "explainer", "simulator").agg(scored, *columns)
    rows = found.select(f"{MEASURES[name]}{end}" for name in CONTROLS for end in _ENDS).to_dicts()
    strongest = [_strongest(row) for row in rows]
    schema: dict[str, pl.DataType] = {"strongest_control": pl.String()}
    schema.update({f"correlation_of_control{end}": pl.Float64() for end in _ENDS})
    return pl.concat([found, pl.DataFrame(strongest, schema)], how="horizontal")


def _strongest(row: Mapping[str, Any]) -> dict[str, Any]:
    control = strongest_control({name: row[MEASURES[name]] for name in CONTROLS})
    if control is None:
        return {"strongest_control": None} | {f"correlation_of_control{end}": None for end in _ENDS}
    column = MEASURES[control.name]
    values = {f"correlation_of_control{end}": row[f"{column}{end}"] for end in _ENDS}
    return {"strongest_control": control.words, **values}
