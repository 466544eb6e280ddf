"""Aggregate scores over neurons: means with intervals, undefined counts, share beating controls."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import LEVELS, SCORE_AGGREGATES
from neuron_atlas.tasks.score.bootstrap import interval
from neuron_atlas.tasks.score.settings import ScoreSettings

MEASURES = (
    "correlation",
    "control_other",
    "control_empty",
    "control_blind",
    *(f"control_{name}" for name in LEVELS),
    "margin",
    "top_random_correlation",
    "purity",
    "random_purity",
    "recall",
    "spearman",
    "auroc",
    "explained_variance",
    "explained_variance_uncentered",
    "detection_auroc",
    "detection_auroc_other",
    "balanced_accuracy",
)
BEATS_CONTROL = "beats_control"
"""Measure: share of tested neurons whose q is at most `score.max_q`."""
_BEATS = {BEATS_CONTROL: "q"} | {f"beats_{name}": f"q_{name}" for name in LEVELS}
"""Such measures, with their column of `scores`."""
_FAMILY = ["explainer", "simulator", "tokens"]


def aggregate_scores(scores: pa.Table, settings: ScoreSettings) -> pa.Table:
    """Return `score_aggregates` of `scores` with p and q: over all neurons, by type and by layer,
    for each explainer, simulator and kind of tokens.

    Only neurons with a correlation count, also for controls, so all means are over the same
    neurons. Intervals are percentile bootstraps of the mean over the neurons with a defined value;
    a measure with fewer than two such neurons has none. beats_control, beats_broader and
    beats_narrower have no interval either, because the neurons are selected jointly.
    """
    frame = pl.DataFrame(scores.select([*_FAMILY, "type", "layer", *_BEATS.values(), *MEASURES]))
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
            columns = dict(zip(_FAMILY, family, strict=True)) | {"by": by, "group": group}
            rows += [columns | row for row in _gather(part, settings)]
    return pa.Table.from_pylist(rows, schema=SCORE_AGGREGATES.schema)


def _gather(part: pl.DataFrame, settings: ScoreSettings) -> list[dict]:
    is_scored = pl.col("correlation").is_not_null()
    if_scored = pl.when(is_scored).then(pl.col(MEASURES).cast(pl.Float64)).fill_null(np.nan)
    values = part.select(if_scored).to_numpy().T
    low, high = _mean_intervals(values, settings)
    rows = []
    for index, measure in enumerate(MEASURES):
        defined = values[index][np.isfinite(values[index])]
        rows.append(
            {
                "measure": measure,
                "n": len(defined),
                "undefined": len(part) - len(defined),
                "mean": float(defined.mean()) if len(defined) else None,
                "median": float(np.median(defined)) if len(defined) else None,
                "ci_low": float(low[index]) if len(defined) > 1 else None,
                "ci_high": float(high[index]) if len(defined) > 1 else None,
            }
        )
    for measure, column in _BEATS.items():
        tested = part[column].drop_nulls()
        rows.append(
            {
                "measure": measure,
                "n": len(tested),
                "undefined": len(part) - len(tested),
                "mean": float((tested <= settings.max_q).mean()) if len(tested) else None,  # type: ignore[arg-type]
                "max_q": settings.max_q,
            }
        )
    return rows


def _mean_intervals(values: np.ndarray, settings: ScoreSettings) -> np.ndarray:
    """Return bounds [2, measures] of the means of values [measures, neurons], without NaN."""
    neurons = values.shape[1]
    is_defined = np.isfinite(values)
    both = np.concatenate([np.where(is_defined, values, 0), is_defined])
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
