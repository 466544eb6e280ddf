"""Shares with their intervals: of the types in each layer, and of neurons with one concept."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import ALL_LAYERS, TESTED_TYPES, TYPE_CONCEPTS, TYPE_SHARES, TYPES

TYPES_OF = {"paper": TYPES, "tested": TESTED_TYPES}
"""The types that each rule knows."""


def wilson(n: np.ndarray, of: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the share n / of; NaN where `of` is 0.

    Wilson, J. Am. Stat. Assoc. 22 (1927). It says how far the share in a larger population of such
    neurons could lie from that of these: the neurons of this model were all counted.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = n / of
        middle = share + z**2 / (2 * of)
        half = z * np.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
        low, high = (middle - half) / (1 + z**2 / of), (middle + half) / (1 + z**2 / of)
    # Rounding must not leave a share of 0 or 1 outside its own interval.
    return np.minimum(low, share).clip(0, 1), np.maximum(high, share).clip(0, 1)


def type_shares(typed: pl.DataFrame) -> pa.Table:
    """The `type_shares` of neurons with their columns rule, layer and type."""
    whole = typed.with_columns(pl.lit(ALL_LAYERS, typed.schema["layer"]).alias("layer"))
    counted = pl.concat([whole, typed]).group_by("rule", "layer", "type").len("n")
    layers = pl.concat([whole, typed]).group_by("rule", "layer").len("of")
    every = layers.join(_known_types(), on="rule")
    counts = every.join(counted, on=["rule", "layer", "type"], how="left").with_columns(
        pl.col("n").fill_null(0)
    )
    return _with_interval(counts.sort("rule", "layer", "place"), TYPE_SHARES.schema)


def type_concepts(typed: pl.DataFrame) -> pa.Table:
    """The `type_concepts` of neurons with their columns rule, type and same_concept."""
    counted = typed.group_by("rule", "type").agg(
        pl.col("same_concept").sum().cast(pl.Int64).alias("n"),
        pl.col("same_concept").count().cast(pl.Int64).alias("of"),
    )
    every = _known_types().join(typed.select("rule").unique(), on="rule")
    counts = every.join(counted, on=["rule", "type"], how="left").with_columns(
        pl.col("n", "of").fill_null(0)
    )
    return _with_interval(counts.sort("rule", "place"), TYPE_CONCEPTS.schema)


def _known_types() -> pl.DataFrame:
    rows = [
        (rule, kind, place) for rule, kinds in TYPES_OF.items() for place, kind in enumerate(kinds)
    ]
    return pl.DataFrame(rows, schema=["rule", "type", "place"], orient="row")


def _with_interval(counts: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    n, of = counts["n"].to_numpy().astype(float), counts["of"].to_numpy().astype(float)
    low, high = wilson(n, of)
    share = np.divide(n, of, out=np.full(len(n), np.nan), where=of > 0)
    numbers = {"share": share, "low": low, "high": high}
    table = counts.with_columns(
        pl.Series(name, values).fill_nan(None) for name, values in numbers.items()
    )
    return table.select(schema.names).to_arrow().cast(schema)
