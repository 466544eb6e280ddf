"""Summarize clarity and redundancy by layer and type."""

from __future__ import annotations

import polars as pl

from neuron_atlas.tasks.artifacts import ALL_LAYERS

ALL_TYPES = "all"
_KEY = ["layer", "neuron"]
_QUANTILES = (5, 50, 95)


def clarity_by_type(
    types: pl.LazyFrame, vectors: pl.LazyFrame, neighbors: pl.LazyFrame
) -> pl.DataFrame:
    """Return clarity and redundancy by layer and type, from three tables of a run.

    Rows of measure (clarity, redundancy), role (visual, text), layer (ALL_LAYERS for all), type
    (ALL_TYPES for all), n (neurons where the measure is defined), mean, p5, p50 and p95.
    """
    measured = pl.concat(
        table.select(*_KEY, "role", pl.lit(name).alias("measure"), pl.col(name).alias("value"))
        for table, name in ((vectors, "clarity"), (neighbors, "redundancy"))
    )
    typed = types.select(*_KEY, "type")
    rows = measured.drop_nulls("value").join(typed, on=_KEY).drop("neuron").collect()
    rows = pl.concat([rows, rows.with_columns(pl.lit(ALL_LAYERS, pl.Int16).alias("layer"))])
    rows = pl.concat([rows, rows.with_columns(pl.lit(ALL_TYPES).alias("type"))])
    value = pl.col("value").cast(pl.Float64)
    quantiles = (
        value.quantile(percent / 100, "linear").alias(f"p{percent}") for percent in _QUANTILES
    )
    keys = ["measure", "role", "layer", "type"]
    grouped = rows.group_by(keys).agg(pl.len().alias("n"), value.mean().alias("mean"), *quantiles)
    return grouped.sort(keys)
