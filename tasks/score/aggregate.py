"""Scores gathered over neurons: means with intervals, what is undefined, who beats the controls."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import SCORE_AGGREGATES
from neuron_atlas.tasks.score.bootstrap import interval
from neuron_atlas.tasks.score.settings import ScoreSettings

MEASURES = (
    "correlation",
    "control_other",
    "control_empty",
    "control_blind",
    "margin",
    "spearman",
    "auroc",
    "explained_variance",
    "explained_variance_uncentred",
    "detection_auc",
    "detection_auc_other",
    "balanced_accuracy",
)
BEATS_CONTROL = "beats_control"
"""The share of tested neurons whose q is at most the level."""
_FAMILY = ["explainer", "simulator", "tokens"]


def aggregate_scores(scores: pa.Table, settings: ScoreSettings) -> pa.Table:
    """`score_aggregates` of judged `scores`: over all neurons, by type and by layer, for each
    explainer, simulator and kind of tokens.

    A control counts where there is a score beside it, so that all means are over the same neurons.
    Intervals are percentile bootstraps of the mean over the neurons for which it is defined; a
    measure of fewer than two has none. beats_control has none either, for which neurons are called
    is decided for all of them together.
    """
    frame = pl.DataFrame(scores.select([*_FAMILY, "type", "layer", "p", "q", *MEASURES]))
    frame = frame.sort(*_FAMILY, "type", "layer", maintain_order=True)
    rows: list[dict] = []
    for by, column in (
        ("all", pl.lit("")),
        ("type", pl.col("type")),
        ("layer", pl.col("layer").cast(pl.String)),
    ):
        parts = frame.with_columns(column.alias("group")).partition_by(
            [*_FAMILY, "group"], as_dict=True, maintain_order=True
        )
        for (*family, group), part in parts.items():
            about = dict(zip(_FAMILY, family, strict=True)) | {"by": by, "group": group}
            rows += [about | row for row in _gather(part, settings)]
    return pa.Table.from_pylist(rows, schema=SCORE_AGGREGATES.schema)


def _gather(part: pl.DataFrame, settings: ScoreSettings) -> list[dict]:
    is_scored = pl.col("correlation").is_not_null()
    beside = pl.when(is_scored).then(pl.col(MEASURES).cast(pl.Float64)).fill_null(np.nan)
    values = part.select(beside).to_numpy().T
    low, high = _mean_intervals(values, settings)
    rows = []
    for place, measure in enumerate(MEASURES):
        known = values[place][np.isfinite(values[place])]
        rows.append(
            {
                "measure": measure,
                "n": len(known),
                "undefined": len(part) - len(known),
                "mean": float(known.mean()) if len(known) else None,
                "median": float(np.median(known)) if len(known) else None,
                "ci_low": float(low[place]) if len(known) > 1 else None,
                "ci_high": float(high[place]) if len(known) > 1 else None,
            }
        )
    tested = part["q"].drop_nulls()
    beats = {
        "measure": BEATS_CONTROL,
        "n": len(tested),
        "undefined": len(part) - len(tested),
        "mean": float((tested <= settings.q).mean()) if len(tested) else None,  # type: ignore[arg-type]
        "level": settings.q,
    }
    return [*rows, beats]


def _mean_intervals(values: np.ndarray, settings: ScoreSettings) -> np.ndarray:
    """Bounds [2, measures] of the means of values [measures, neurons], NaN left out."""
    neurons = values.shape[1]
    known = np.isfinite(values)
    both = np.concatenate([np.where(known, values, 0), known])
    rng = np.random.default_rng([settings.seed, neurons])
    sums = np.stack(
        [
            both @ np.bincount(rng.integers(neurons, size=neurons), minlength=neurons)
            for _ in range(settings.resamples)
        ],
        axis=1,
    )
    totals, counts = np.split(sums, 2)
    with np.errstate(invalid="ignore"):
        return interval(totals / counts)
