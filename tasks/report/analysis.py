"""Read the tables of the analysis that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    ALL_LAYERS,
    NEURON_TESTS,
    RESPONSES,
    TESTED_TYPES,
    TYPE_AGREEMENT,
    TYPE_CONCEPTS,
    TYPE_KAPPA,
    TYPE_RESPONSES,
    TYPE_SHARES,
    TYPE_TOP_WORDS,
    TYPES,
    TableSpec,
    read_table,
)

TYPES_BY_RULE = {"paper": TYPES, "tested": TESTED_TYPES}
"""The types of each rule."""
_DENSITIES = ("positive_visual", "positive_text")
_TABLES = {
    "shares": TYPE_SHARES,
    "agreement": TYPE_AGREEMENT,
    "kappa": TYPE_KAPPA,
    "responses": TYPE_RESPONSES,
    "concepts": TYPE_CONCEPTS,
    "top_words": TYPE_TOP_WORDS,
}


@dataclass(frozen=True)
class Analysis:
    """Tables of the analysis.

    densities: for every neuron, the shares of visual and text tokens at which it is active
    (positive_visual, positive_text) and its type, by tests if the run has them.
    """

    shares: pl.DataFrame
    agreement: pl.DataFrame
    kappa: pl.DataFrame
    responses: pl.DataFrame
    concepts: pl.DataFrame
    top_words: pl.DataFrame
    densities: pl.DataFrame

    @property
    def rules(self) -> list[str]:
        """Rules that typed the neurons: paper, and tested if the run has tests."""
        return [rule for rule in TYPES_BY_RULE if rule in self.shares["rule"].unique()]

    def by_type(self) -> list[dict[str, object]]:
        """Return a table row for each rule and type that has neurons."""
        whole = self.shares.filter(pl.col("layer") == ALL_LAYERS, pl.col("n") > 0)
        rows = []
        for row in whole.to_dicts():
            mine = (pl.col("rule") == row["rule"]) & (pl.col("type") == row["type"])
            medians = dict(self.responses.filter(mine).select("measure", "p50").rows())
            (concept,) = self.concepts.filter(mine).to_dicts()
            words = self.top_words.filter(mine)["word"].to_list()
            rows.append({**row, "medians": medians, "concept": concept, "words": words})
        return rows


def read_analysis(tables: Mapping[str, Sequence[Path]], types: pa.Table) -> Analysis:
    """Read the analysis of a run from the files of its tables. types: the complete `types`."""
    small = {
        name: pl.DataFrame(read_table(tables[spec.name], spec)) for name, spec in _TABLES.items()
    }
    key = ["layer", "neuron"]
    neurons = _frame(tables, RESPONSES, [*key, *_DENSITIES])
    if "tested_types" in tables:
        typed = _frame(tables, NEURON_TESTS, [*key, "type_tested"]).rename({"type_tested": "type"})
    else:
        typed = pl.DataFrame(types.select([*key, "type"]))
    densities = neurons.join(typed, on=key).select("type", *_DENSITIES)
    return Analysis(densities=densities, **small)


def write_analysis(folder: Path, analysis: Analysis) -> None:
    """Save the small tables as CSV in the folder that `tables.write_tables` also uses."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, spec in _TABLES.items():
        getattr(analysis, name).write_csv(folder / f"{spec.name}.csv")


def _frame(
    tables: Mapping[str, Sequence[Path]], spec: TableSpec, columns: Sequence[str]
) -> pl.DataFrame:
    return pl.DataFrame(read_table(tables[spec.name], spec, columns))
