"""Summarize a run: small tables, and the closing summary as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import LEVELS, TYPES
from neuron_atlas.tasks.report.controls import CONTROLS, strongest_control

_COUNTED = ["status", "reason", "count"]

EXPLAINING = (
    *("purity", "random_purity", "recall", "top_random_correlation"),
    *("control_broader", "control_narrower"),
)
"""Columns of `scores` that are shown next to the score, to say why it is high or low."""

RESPONSE_MEANS = ("monosemanticity", "meanings")
"""Measures of `type_responses` whose mean over all neurons is shown."""


@dataclass(frozen=True)
class Summary:
    """Closing summary of a run. Means are None if nothing was scored."""

    neurons: dict[str, int]
    """Number of neurons of each of the four types."""
    n_scored: int
    mean_score: float | None
    mean_control: float | None
    """Mean of the strongest control."""
    strongest_control: str | None
    """Name of the strongest control, one of CONTROLS."""
    mean_controls: dict[str, float | None]
    """Mean of each of CONTROLS."""
    mean_margin: float | None
    mean_of: dict[str, float | None]
    """Mean of each of EXPLAINING."""
    n_tested: int
    """Number of scores that could be tested against their controls."""
    n_beat_control: int
    """Number of scores that beat their controls at the false discovery rate `level`."""
    level: float | None
    by_explainer: list[dict[str, Any]]
    """The same numbers for each explainer and simulator with a score: n, mean, control,
    strongest_control, margin, tested, beat_control, and the mean of each of CONTROLS and of
    EXPLAINING."""
    mean_responses: dict[str, float | None]
    """Mean of each of RESPONSE_MEANS over all neurons."""
    failures: dict[tuple[str, str], int]
    """Number of rows by (table, status), except ok, most frequent first."""


def types_by_layer(types: pa.Table) -> pl.DataFrame:
    """Return number and share of each type, a row per layer and a last row for all (layer null)."""
    frame = pl.DataFrame(types.select(["layer", "type"])).cast({"layer": pl.Int64})
    number = [(pl.col("type") == name).sum().cast(pl.Int64).alias(name) for name in TYPES]
    total = pl.len().cast(pl.Int64).alias("neurons")
    layers = frame.group_by("layer").agg(total, *number).sort("layer")
    whole = frame.select(pl.lit(None, pl.Int64).alias("layer"), total, *number)
    if frame.is_empty():
        whole = whole.clear()
    shares = [(pl.col(name) / pl.col("neurons")).alias(f"{name} share") for name in TYPES]
    return pl.concat([layers, whole]).with_columns(shares)


def over_all_tokens(scores: pa.Table) -> pa.Table:
    """Return the rows of `scores` over all tokens, one per explanation and simulator."""
    return scores.filter(pc.equal(scores["tokens"], "all"))


def without_absent_levels(simulations: pa.Table) -> pa.Table:
    """Return rows of `simulations` without the broader and narrower claims that cannot be made.

    Not every explanation has them, so they are no failures."""
    is_level = pc.is_in(simulations["explanation"], value_set=pa.array(LEVELS))
    is_absent = pc.equal(simulations["status"], "no_control")
    return simulations.filter(pc.invert(pc.and_(is_level, is_absent)))


def scores_overview(aggregates: pa.Table) -> list[dict[str, Any]]:
    """Return scores over all tokens for all neurons, each type and each layer.

    There is one row per explainer, simulator and group. It holds the row of `score_aggregates` of
    each measure, by the name of the measure, and `strongest`, the strongest Control by its mean.
    """
    frame = pl.DataFrame(aggregates).filter(pl.col("tokens") == "all")
    order = pl.col("by").replace_strict({"all": 0, "type": 1, "layer": 2}, default=3)
    within = pl.col("group").replace_strict(_ORDER, default=len(TYPES), return_dtype=pl.Int64)
    number = pl.col("group").cast(pl.Int64, strict=False)
    keys = ["explainer", "simulator", "by", "group"]
    rows: dict[tuple, dict[str, Any]] = {}
    for row in frame.sort("explainer", "simulator", order, within, number).to_dicts():
        key = tuple(row[name] for name in keys)
        rows.setdefault(key, dict(zip(keys, key, strict=True)))[row["measure"]] = row
    for found in rows.values():
        means = {name: found[name]["mean"] for name in CONTROLS if name in found}
        found["strongest"] = strongest_control(means)
    return list(rows.values())


def failures_by_reason(outcomes: Mapping[str, pa.Table]) -> pl.DataFrame:
    """Count failures by table, status and reason: `count` of the table's `of` rows.

    outcomes: tables by name; only their columns status and reason are needed. A table with a column
    count stands for as many rows.
    """
    words = dict.fromkeys(("table", "status", "reason"), pl.String)
    rows = [row for name, table in outcomes.items() for row in _count_outcomes(name, table)]
    return pl.DataFrame(rows, schema=words | dict.fromkeys(("count", "of"), pl.Int64), orient="row")


def failures_by_status(outcomes: Mapping[str, pa.Table]) -> pl.DataFrame:
    """Count failures by table and status, with the number of reasons and the most frequent one.

    Reasons may name single samples, so there can be many.
    """
    return (
        failures_by_reason(outcomes)
        .group_by("table", "status", maintain_order=True)
        .agg(
            pl.col("count").sum(),
            pl.col("of").first(),
            pl.len().cast(pl.Int64).alias("reasons"),
            pl.col("reason").first().alias("first_reason"),
        )
    )


def summarize_run(
    types: pa.Table,
    scores: pa.Table,
    aggregates: pa.Table,
    outcomes: Mapping[str, pa.Table],
    responses: pl.DataFrame | None = None,
) -> Summary:
    """Return the closing summary of a run, from the scores over all tokens.

    responses: the table `type_responses`; None if the run has none.
    """
    counts = pl.DataFrame(types.select(["type"]))["type"]
    scored = _score_frame(scores).filter("scored")
    tests = pl.DataFrame(aggregates).filter(
        pl.col("tokens") == "all", pl.col("by") == "all", pl.col("measure") == "beats_control"
    )
    controls = {name: _mean(scored[name]) for name in CONTROLS}
    strongest = strongest_control(controls)
    failures = failures_by_status(outcomes).sort("count", descending=True, maintain_order=True)
    return Summary(
        neurons={name: int((counts == name).sum()) for name in TYPES},
        n_scored=scored.height,
        mean_score=_mean(scored["correlation"]),
        mean_control=None if strongest is None else strongest.value,
        strongest_control=None if strongest is None else strongest.name,
        mean_controls=controls,
        mean_margin=_mean(scored["margin"]),
        mean_of={name: _mean(scored[name]) for name in EXPLAINING},
        n_tested=int(tests["n"].sum()),
        n_beat_control=round((tests["n"] * tests["mean"].fill_null(0)).sum()),
        level=tests["max_q"][0] if len(tests) else None,
        by_explainer=_by_explainer(scored, tests),
        mean_responses={name: _mean_response(responses, name) for name in RESPONSE_MEANS},
        failures={(row["table"], row["status"]): row["count"] for row in failures.to_dicts()},
    )


def _by_explainer(scored: pl.DataFrame, tests: pl.DataFrame) -> list[dict[str, Any]]:
    keys = ["explainer", "simulator"]
    means = scored.group_by(keys).agg(
        pl.len().alias("n"),
        pl.col("correlation").mean().alias("mean"),
        pl.col("margin").mean().alias("margin"),
        pl.col(*CONTROLS, *EXPLAINING).mean(),
    )
    beaten = (pl.col("n") * pl.col("mean").fill_null(0)).round().cast(pl.Int64)
    tested = tests.select(*keys, pl.col("n").alias("tested"), beaten.alias("beat_control"))
    counts = pl.col("tested", "beat_control").fill_null(0)
    rows = means.join(tested, on=keys, how="left").with_columns(counts).sort(keys).to_dicts()
    return [row | _strongest(row) for row in rows]


def _strongest(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strongest control of a row with the mean of each control."""
    control = strongest_control(row)
    if control is None:
        return {"control": None, "strongest_control": None}
    return {"control": control.value, "strongest_control": control.name}


def write_tables(
    folder: Path, types: pa.Table, aggregates: pa.Table, outcomes: Mapping[str, pa.Table]
) -> list[Path]:
    """Save types by layer, score aggregates and failures by reason as CSV. Return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in (
        ("types_by_layer", types_by_layer(types)),
        ("score_aggregates", pl.DataFrame(aggregates)),
        ("failures_by_reason", failures_by_reason(outcomes)),
    ):
        path = folder / f"{name}.csv"
        table.write_csv(path)
        written.append(path)
    return written


_ORDER = {name: index for index, name in enumerate(TYPES)}


def _score_frame(scores: pa.Table) -> pl.DataFrame:
    words = ("explainer", "simulator", "type", "status")
    measures = ("correlation", *CONTROLS, "margin", *EXPLAINING)
    frame = pl.DataFrame(scores.select([*words, *measures]))
    # Compute means of float32 columns in float64.
    known = pl.col(measures).cast(pl.Float64).fill_nan(None)
    frame = frame.with_columns(known)
    # A correlation without a control is also a score, without a margin.
    return frame.with_columns(pl.col("correlation").is_not_null().alias("scored"))


def _count_outcomes(name: str, table: pa.Table) -> list[tuple[str, str, str, int, int]]:
    """Count in Arrow, because `simulations` has many rows per neuron."""
    if "count" in table.column_names:
        counted = table.to_pylist()
    else:
        groups = table.select(["status", "reason"]).group_by(["status", "reason"])
        counted = groups.aggregate([([], "count_all")]).rename_columns(_COUNTED).to_pylist()
    total = sum(row["count"] for row in counted)
    rows = [
        (name, row["status"], row["reason"] or "", row["count"], total)
        for row in counted
        if row["status"] != "ok"
    ]
    # Sort by the frequency of the status, then by that of the reason.
    by_status: dict[str, int] = {}
    for _, status, _, count, _ in rows:
        by_status[status] = by_status.get(status, 0) + count
    return sorted(rows, key=lambda row: (-by_status[row[1]], row[1], -row[3], row[2]))


def _mean_response(responses: pl.DataFrame | None, measure: str) -> float | None:
    if responses is None:
        return None
    rows = responses.filter(rule="paper", measure=measure)
    n = int(rows["n"].sum())
    return float((rows["n"] * rows["mean"]).sum()) / n if n else None


def _mean(values: pl.Series) -> float | None:
    known = values.drop_nulls()
    return float(known.mean()) if len(known) else None  # type: ignore[arg-type]
