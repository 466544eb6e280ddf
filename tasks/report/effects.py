"""Summarize the effects of neurons: causal types, the check of the attribution, faithfulness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    ABLATIONS,
    EFFECTS,
    FAITHFULNESS,
    TYPES,
    read_table,
)
from neuron_atlas.tasks.artifacts.effects import CAUSAL_TYPES

_KEY = ["layer", "neuron"]
_LEAST_CORRELATION = 0.8
_SLOPES = (0.5, 2.0)
"""Attribution is trusted where its correlation with exact effects is at least this, and the slope
of exact effects on it is in this range."""
_LEAST_NEURONS = 4
_USUAL_LEVEL = 0.05
_EFFECTS = [*_KEY, "effect", "q", "causal_type", "status"]


@dataclass(frozen=True)
class EffectsSummary:
    """The effects of a run.

    effects: layer, neuron, type, effect, size (its absolute value), q, causal_type. checked: a row
    for each neuron that was ablated exactly: its mean effect, exact and to first order, and `peak`,
    its highest activation. faithfulness: the complete table. level: the false discovery rate of
    the tests.
    """

    effects: pl.DataFrame
    checked: pl.DataFrame
    faithfulness: pl.DataFrame
    level: float

    def causal_types(self) -> list[dict[str, Any]]:
        """Return a row for each type with neurons: their number by causal type."""
        rows = []
        for name in TYPES:
            mine = self.effects.filter(type=name)
            if mine.height:
                counts = {one: mine.filter(causal_type=one).height for one in CAUSAL_TYPES}
                rows.append(
                    {
                        "type": name,
                        "n": mine.height,
                        "counts": counts,
                        "median": mine["size"].median(),
                    }
                )
        return rows

    def checks(self) -> list[dict[str, Any]]:
        """Return rows of `_check`: all neurons, each layer, and the halves with smaller and larger
        highest activations."""
        if self.checked.is_empty():
            return []
        middle = self.checked["peak"].median()
        groups = [("all neurons", self.checked)]
        groups += [
            (f"layer {layer}", self.checked.filter(layer=layer))
            for layer in sorted(self.checked["layer"].unique())
        ]
        groups += [
            ("smaller activations", self.checked.filter(pl.col("peak") <= middle)),
            ("larger activations", self.checked.filter(pl.col("peak") > middle)),
        ]
        return [{"group": name, **_check(rows)} for name, rows in groups]

    def faithful(self) -> list[dict[str, Any]]:
        """Return a row for each explainer: explanations tested, faithful ones, and means."""
        rows = []
        for explainer in self.faithfulness["explainer"].unique().sort():
            mine = self.faithfulness.filter(explainer=explainer)
            tested = mine.filter(pl.col("p").is_not_null())
            rows.append(
                {
                    "explainer": explainer,
                    "tested": tested.height,
                    "faithful": tested.filter(pl.col("q") <= self.level).height,
                    "mean": tested["faithfulness"].mean(),
                    "agreement": mine["agreement"].mean(),
                    "agreement_other": mine["agreement_other"].mean(),
                }
            )
        return rows

    def metrics(self) -> dict[str, float | None]:
        """Return the numbers that MLflow logs, by name."""
        known = self.effects.filter(pl.col("q").is_not_null())
        (check, *_) = self.checks() or [{}]
        found = self.faithful()
        tested = sum(row["tested"] for row in found)
        agreed = self.faithfulness["agreement"].mean()
        return {
            "share_with_effect": known.select((pl.col("q") <= self.level).mean()).item()
            if known.height
            else None,
            "attribution_correlation": check.get("correlation"),
            "attribution_slope": check.get("slope"),
            "explanations_tested": float(tested) if found else None,
            "explanations_faithful": float(sum(row["faithful"] for row in found))
            if found
            else None,
            "agreement": None if agreed is None else float(agreed),  # type: ignore[arg-type]
        }


def read_effects(
    tables: Mapping[str, Sequence[Path]], types: pa.Table, level: float | None
) -> EffectsSummary | None:
    """Read the effects of a run from the files of its tables; None for a run without.

    level: false discovery rate of the tests; None for the usual one.
    """
    if not tables.get(EFFECTS.name):
        return None
    typed = pl.DataFrame(types.select([*_KEY, "type", "scale"]))
    effects = pl.DataFrame(read_table(tables[EFFECTS.name], EFFECTS, _EFFECTS)).fill_nan(None)
    effects = effects.filter(status="ok").with_columns(pl.col("effect").abs().alias("size"))
    columns = [*_KEY, "set_to", "change", "first_order"]
    ablated = pl.DataFrame(read_table(tables.get(ABLATIONS.name, ()), ABLATIONS, columns))
    checked = (
        ablated.filter(set_to="zero")
        .fill_nan(None)
        .group_by(_KEY, maintain_order=True)
        .agg(pl.col("change", "first_order").cast(pl.Float64).mean())
        .drop_nulls()
    )
    faithfulness = read_table(tables.get(FAITHFULNESS.name, ()), FAITHFULNESS)
    return EffectsSummary(
        effects.join(typed.drop("scale"), on=_KEY),
        checked.join(typed, on=_KEY).rename({"scale": "peak"}),
        pl.DataFrame(faithfulness).fill_nan(None),
        _USUAL_LEVEL if level is None else level,
    )


def _check(rows: pl.DataFrame) -> dict[str, Any]:
    """Return how exact effects follow the attribution: n, correlation, slope (of exact effects on
    it, 1 if it is right) and whether it is trusted; None where there are too few neurons."""
    exact, first = rows["change"].to_numpy(), rows["first_order"].to_numpy()
    if len(rows) < _LEAST_NEURONS or not exact.std() or not first.std():
        return {"n": len(rows), "correlation": None, "slope": None, "is_trusted": None}
    correlation = float(np.corrcoef(exact, first)[0, 1])
    slope = correlation * float(exact.std() / first.std())
    return {
        "n": len(rows),
        "correlation": correlation,
        "slope": slope,
        "is_trusted": correlation >= _LEAST_CORRELATION and _SLOPES[0] <= slope <= _SLOPES[1],
    }
