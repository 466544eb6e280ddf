"""How far the paper's rule and the tests agree."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import TESTED_TYPES, TYPE_AGREEMENT, TYPE_KAPPA, TYPES

_SAME_AS = {"undecided": "unknown", "silent": "unknown"}
"""What the paper's rule calls a neuron of which the tests say nothing."""
_Z = NormalDist().inv_cdf(0.975)


def type_agreement(types: pl.DataFrame) -> pa.Table:
    """The `type_agreement` of neurons with their columns type and type_tested."""
    rows = [(kind, tested) for kind in TYPES for tested in TESTED_TYPES]
    every = pl.DataFrame(rows, schema=["type", "type_tested"], orient="row")
    counted = types.group_by("type", "type_tested").len("n").cast({"n": pl.Int64})
    joined = every.join(
        counted, on=["type", "type_tested"], how="left", maintain_order="left"
    ).with_columns(pl.col("n").fill_null(0))
    return joined.to_arrow().cast(TYPE_AGREEMENT.schema)


def type_kappa(agreement: pa.Table) -> pa.Table:
    """The `type_kappa` row of a `type_agreement`; no row where no neuron was typed twice.

    kappa = (p_o - p_e) / (1 - p_e), p_o the share on which both agree and p_e that expected by
    chance; its standard error is sqrt(p_o (1 - p_o) / n) / (1 - p_e) (Cohen, Educ. Psychol. Meas.
    20, 1960).
    """
    counts = np.zeros((len(TYPES), len(TYPES)))
    for row in agreement.to_pylist():
        tested = _SAME_AS.get(row["type_tested"], row["type_tested"])
        counts[TYPES.index(row["type"]), TYPES.index(tested)] += row["n"]
    total = counts.sum()
    if not total:
        return TYPE_KAPPA.schema.empty_table()
    agreed = counts.trace() / total
    by_chance = float(counts.sum(0) @ counts.sum(1)) / total**2
    found = {"rule": "tested", "n": int(total), "agreed": agreed, "by_chance": by_chance}
    if by_chance < 1:
        kappa = (agreed - by_chance) / (1 - by_chance)
        half = _Z * np.sqrt(agreed * (1 - agreed) / total) / (1 - by_chance)
        found |= {"kappa": kappa, "low": kappa - half, "high": min(kappa + half, 1.0)}
    return pa.Table.from_pylist([found], schema=TYPE_KAPPA.schema)
