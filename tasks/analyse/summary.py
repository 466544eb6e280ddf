"""Summarize the neurons' responses by type, for each rule that typed them."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.analyse.agreement import type_agreement, type_kappa
from neuron_atlas.tasks.analyse.shares import TYPES_BY_RULE, type_concepts, type_shares
from neuron_atlas.tasks.artifacts import (
    TYPE_AGREEMENT,
    TYPE_CONCEPTS,
    TYPE_KAPPA,
    TYPE_RESPONSES,
    TYPE_SHARES,
    TYPE_TOP_WORDS,
    TableSpec,
)

MEASURES = ("positive_visual", "positive_text", "concentration", "monosemanticity", "meanings")
_QUANTILES = (5, 25, 50, 75, 95)
_KEY = ["layer", "neuron"]
_ORDER = {kind: order for kinds in TYPES_BY_RULE.values() for order, kind in enumerate(kinds)}


def summarize_types(
    types: pa.Table, tested: pa.Table | None, responses: pa.Table, top_words: int
) -> list[tuple[TableSpec, pa.Table]]:
    """Return the TYPE_SUMMARIES tables, from the complete `types`, `tested_types` and `responses`.

    tested: None if the run's rule does not test. top_words: words stored per type.
    """
    paper = pl.DataFrame(types.select([*_KEY, "type"]))
    typings = [paper.with_columns(pl.lit("paper").alias("rule"))]
    both = pl.DataFrame(schema={"type": pl.String, "type_tested": pl.String})
    if tested is not None:
        by_tests = pl.DataFrame(tested.select([*_KEY, "type_tested"]))
        both = paper.join(by_tests, on=_KEY)
        renamed = by_tests.rename({"type_tested": "type"})
        typings.append(renamed.with_columns(pl.lit("tested").alias("rule")))
    typed = pl.concat(typings).join(
        pl.DataFrame(responses.select([*_KEY, *MEASURES, "top_words", "same_concept"])), on=_KEY
    )
    agreement = TYPE_AGREEMENT.schema.empty_table() if tested is None else type_agreement(both)
    return [
        (TYPE_SHARES, type_shares(typed.select("rule", "layer", "type"))),
        (TYPE_AGREEMENT, agreement),
        (TYPE_KAPPA, type_kappa(agreement)),
        (TYPE_RESPONSES, _type_responses(typed)),
        (TYPE_CONCEPTS, type_concepts(typed)),
        (TYPE_TOP_WORDS, _type_top_words(typed, top_words)),
    ]


def _type_responses(typed: pl.DataFrame) -> pa.Table:
    value = pl.col("value")
    long = typed.unpivot(MEASURES, index=["rule", "type"], variable_name="measure")
    summary = (
        long.drop_nulls("value")
        .group_by("rule", "type", "measure")
        .agg(
            pl.len().cast(pl.Int64).alias("n"),
            value.mean().alias("mean"),
            *(
                value.quantile(percent / 100, "linear").alias(f"p{percent}")
                for percent in _QUANTILES
            ),
        )
        .sort("rule", pl.col("type").replace_strict(_ORDER), "measure")
    )
    return summary.to_arrow().cast(TYPE_RESPONSES.schema)


def _type_top_words(typed: pl.DataFrame, limit: int) -> pa.Table:
    counted = (
        typed.with_columns(pl.col("top_words").list.first().alias("word"))
        .drop_nulls("word")
        .group_by("rule", "type", "word")
        .agg(pl.len().cast(pl.Int64).alias("n"))
        .sort("rule", pl.col("type").replace_strict(_ORDER), -pl.col("n"), "word")
        .group_by("rule", "type", maintain_order=True)
        .head(limit)
    )
    return counted.select(TYPE_TOP_WORDS.schema.names).to_arrow().cast(TYPE_TOP_WORDS.schema)
