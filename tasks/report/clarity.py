"""Summarize how clear and how redundant neurons are, by layer and type, without any labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    ALL_LAYERS,
    NEIGHBORS,
    SEARCH_VECTORS,
    TYPES,
    read_table,
)

ALL_TYPES = "all"
_KEY = ["layer", "neuron"]
_QUANTILES = (5, 50, 95)
_MEASURES = {"clarity": SEARCH_VECTORS, "redundancy": NEIGHBORS}
_ROLES = ("visual", "text")


@dataclass(frozen=True)
class ClaritySummary:
    """Clarity and redundancy of a run. table: the rows of `clarity_by_type`."""

    table: pl.DataFrame

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for all neurons, each type and each layer: `by` (all, type, layer), `group`,
        and the row of each measure and role, as `clarity_visual`; None where it is not defined."""
        layers = sorted(set(self.table["layer"]) - {ALL_LAYERS})
        groups: list[tuple[str, Any, int, str]] = [("all", "", ALL_LAYERS, ALL_TYPES)]
        groups += [("type", name, ALL_LAYERS, name) for name in TYPES]
        groups += [("layer", layer, layer, ALL_TYPES) for layer in layers]
        found = {
            (row["layer"], row["type"], f"{row['measure']}_{row['role']}"): row
            for row in self.table.to_dicts()
        }
        names = [f"{measure}_{role}" for measure in _MEASURES for role in _ROLES]
        rows = [
            {"by": by, "group": group} | {name: found.get((layer, kind, name)) for name in names}
            for by, group, layer, kind in groups
        ]
        return [row for row in rows if any(row[name] for name in names)]

    def metrics(self) -> dict[str, float]:
        """Return the mean over all neurons of each measure and role, by name."""
        whole = self.table.filter(layer=ALL_LAYERS, type=ALL_TYPES)
        return {f"{row['measure']}_{row['role']}": row["mean"] for row in whole.to_dicts()}


def read_clarity(tables: Mapping[str, Sequence[Path]], types: pa.Table) -> ClaritySummary | None:
    """Read the measures of a run from the files of its tables; None for a run without them."""
    if not all(tables.get(spec.name) for spec in _MEASURES.values()):
        return None
    vectors, neighbors = (
        pl.DataFrame(read_table(tables[spec.name], spec, [*_KEY, "role", name])).lazy()
        for name, spec in _MEASURES.items()
    )
    typed = pl.DataFrame(types.select([*_KEY, "type"])).lazy()
    return ClaritySummary(clarity_by_type(typed, vectors, neighbors))


def write_clarity(folder: Path, clarity: ClaritySummary | None) -> None:
    """Save the table as CSV, by layer and type together."""
    if clarity is not None:
        clarity.table.write_csv(folder / "clarity.csv")


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
