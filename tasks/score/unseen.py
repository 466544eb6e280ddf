"""Check that explanations are scored on samples that nothing was fitted on."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl


def check_unseen(rows: pl.DataFrame, seen: Mapping[tuple[int, int, str], frozenset[int]]) -> None:
    """Raise ValueError if a scored sample was seen by the explainer or also serves the calibration.

    rows: of `simulations`. seen: sample_ids by (layer, neuron, explainer).
    """
    keys = ["layer", "neuron", "sample_id"]
    used = rows.filter(pl.col("status") == "ok").select(*keys, "explainer", "purpose")
    shown = pl.DataFrame(
        [(*key, sorted(sample_ids)) for key, sample_ids in seen.items()],
        {
            "layer": pl.Int16,
            "neuron": pl.Int32,
            "explainer": pl.String,
            "sample_id": pl.List(pl.Int32),
        },
        orient="row",
    ).explode("sample_id")
    for layer, neuron, sample_id in (
        used.join(shown, on=[*keys, "explainer"], how="semi").select(keys).head(1).rows()
    ):
        raise ValueError(
            f"neuron {layer}:{neuron} would be scored on sample {sample_id}, "
            "which its explainer saw"
        )
    purposes = used.select(*keys, "purpose").unique()
    for layer, neuron, sample_id in (
        purposes.filter(pl.len().over(keys) > 1).select(keys).sort(keys).head(1).rows()
    ):
        raise ValueError(
            f"neuron {layer}:{neuron} would be scored on sample {sample_id}, "
            "which its predictions are calibrated on"
        )
