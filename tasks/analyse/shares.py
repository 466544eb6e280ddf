"""Compute the shares of the types, and of neurons with one concept in both roles, with
intervals."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import ALL_LAYERS, TESTED_TYPES, TYPE_CONCEPTS, TYPE_SHARES, TYPES

TYPES_BY_RULE = {"paper": TYPES, "tested": TESTED_TYPES}
"""The types of each rule."""


def wilson_interval(
    n: np.ndarray, of: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper bound of the share n / of; NaN if `of` is 0.

    Wilson, J. Am. Stat. Assoc. 22 (1927). All neurons of this model are counted, so the interval is
    about a larger population of similar neurons.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = n / of
        middle = share + z**2 / (2 * of)
        half = z * np.sqrt(share * (1 - share) / of + z**2 / (4 * of**2))
        low, high = (middle - half) / (1 + z**2 / of), (middle + half) / (1 + z**2 / of)
    # Rounding must not put a share of 0 or 1 outside its interval.
    return np.minimum(low, share).clip(0, 1), np.maximum(high, share).clip(0, 1)


def type_shares(typed: pl.DataFrame) -> pa.Table:
    """Return the `type_shares` table. typed: one row per neuron and rule, columns rule, layer,
    type."""
    all_layers = typed.with_columns(pl.lit(ALL_LAYERS, typed.schema["layer"]).alias("layer"))
    found_counts = pl.concat([all_layers, typed]).group_by("rule", "layer", "type").len("n")
    layers = pl.concat([all_layers, typed]).group_by("rule", "layer").len("total")
    combinations = layers.join(_types_of_rules(), on="rule")
    counts = combinations.join(found_counts, on=["rule", "layer", "type"], how="left").with_columns(
        pl.col("n").fill_null(0)
    )
    return _with_interval(counts.sort("rule", "layer", "order"), TYPE_SHARES.schema)


def type_concepts(typed: pl.DataFrame) -> pa.Table:
    """Return the `type_concepts` table. typed: one row per neuron and rule, columns rule, type,
    same_concept."""
    found_counts = typed.group_by("rule", "type").agg(
        pl.col("same_concept").sum().cast(pl.Int64).alias("n"),
        pl.col("same_concept").count().cast(pl.Int64).alias("total"),
    )
    combinations = _types_of_rules().join(typed.select("rule").unique(), on="rule")
    counts = combinations.join(found_counts, on=["rule", "type"], how="left").with_columns(
        pl.col("n", "total").fill_null(0)
    )
    return _with_interval(counts.sort("rule", "order"), TYPE_CONCEPTS.schema)


def _types_of_rules() -> pl.DataFrame:
    rows = [
        (rule, kind, order)
        for rule, kinds in TYPES_BY_RULE.items()
        for order, kind in enumerate(kinds)
    ]
    return pl.DataFrame(rows, schema=["rule", "type", "order"], orient="row")


def _with_interval(counts: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    n, of = counts["n"].to_numpy().astype(float), counts["total"].to_numpy().astype(float)
    low, high = wilson_interval(n, of)
    share = np.divide(n, of, out=np.full(len(n), np.nan), where=of > 0)
    numbers = {"share": share, "ci_low": low, "ci_high": high}
    table = counts.with_columns(
        pl.Series(name, values).fill_nan(None) for name, values in numbers.items()
    )
    return table.select(schema.names).to_arrow().cast(schema)
