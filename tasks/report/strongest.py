"""Select the neurons that a report shows: the strongest of each type."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import TYPE_COLUMNS, TYPES


def select_strongest_neurons(
    types: pa.Table, explanations: pa.Table, scores: pa.Table, per_type: int = 6
) -> list[tuple[int, int, str]]:
    """Return the `per_type` strongest neurons of each type as (layer, neuron, type), best first.

    Neurons with a correlation come first, sorted by the highest one of any explainer and
    simulator. Then come neurons with an explanation, then all others. Ties are broken by the share
    of exemplars of the type, then by layer and neuron. Neurons without exemplars are left out.
    """
    frame = pl.DataFrame(
        types.select(["layer", "neuron", "type", "n_exemplars", *TYPE_COLUMNS.values()])
    ).filter(pl.col("n_exemplars") > 0)
    share = pl.coalesce(
        pl.when(pl.col("type") == name).then(pl.col(column))
        for name, column in TYPE_COLUMNS.items()
    )
    ranked = (
        frame.with_columns(share.fill_nan(0).alias("share"))
        .join(_best_correlations(scores), on=["layer", "neuron"], how="left")
        .join(_explained(explanations), on=["layer", "neuron"], how="left")
        .sort(
            pl.col("correlation"),
            pl.col("explained").fill_null(False),
            pl.col("share"),
            pl.col("layer"),
            pl.col("neuron"),
            descending=[True, True, True, False, False],
            nulls_last=True,
        )
    )
    return [
        (row["layer"], row["neuron"], name)
        for name in TYPES
        for row in ranked.filter(pl.col("type") == name).head(per_type).to_dicts()
    ]


def _best_correlations(scores: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(scores.select(["layer", "neuron", "correlation", "status"]))
    return (
        frame.filter(pl.col("correlation").is_not_null(), pl.col("correlation").is_not_nan())
        .group_by("layer", "neuron")
        .agg(pl.col("correlation").max())
    )


def _explained(explanations: pa.Table) -> pl.DataFrame:
    frame = pl.DataFrame(explanations.select(["layer", "neuron", "status"]))
    ok = frame.filter(pl.col("status") == "ok").select("layer", "neuron").unique()
    return ok.with_columns(pl.lit(True).alias("explained"))
