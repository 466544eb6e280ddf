"""Measure the agreement of the paper's rule and the tests."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import polars as pl
import pyarrow as pa

from neuron_atlas.tasks.artifacts import TESTED_TYPES, TYPE_AGREEMENT, TYPE_KAPPA, TYPES

_SAME_AS = {"undecided": "unknown", "silent": "unknown"}
"""Tested types without a counterpart in the paper's rule, and the paper's type they count as."""
_Z = NormalDist().inv_cdf(0.975)


def type_agreement(types: pl.DataFrame) -> pa.Table:
    """Return the `type_agreement` table. types: one row per neuron, columns type, type_tested."""
    rows = [(kind, tested) for kind in TYPES for tested in TESTED_TYPES]
    cells = pl.DataFrame(rows, schema=["type", "type_tested"], orient="row")
    counted = types.group_by("type", "type_tested").len("n").cast({"n": pl.Int64})
    joined = cells.join(
        counted, on=["type", "type_tested"], how="left", maintain_order="left"
    ).with_columns(pl.col("n").fill_null(0))
    return joined.to_arrow().cast(TYPE_AGREEMENT.schema)


def type_kappa(agreement: pa.Table) -> pa.Table:
    """Return the `type_kappa` row of a `type_agreement` table; no row if no neuron has both types.

    kappa = (p_o - p_e) / (1 - p_e), with p_o the observed agreement and p_e the agreement expected
    by chance. Its standard error is sqrt(p_o (1 - p_o) / n) / (1 - p_e) (Cohen, Educ. Psychol.
    Meas. 20, 1960).
    """
    counts = np.zeros((len(TYPES), len(TYPES)))
    for cell in agreement.to_pylist():
        tested = _SAME_AS.get(cell["type_tested"], cell["type_tested"])
        counts[TYPES.index(cell["type"]), TYPES.index(tested)] += cell["n"]
    total = counts.sum()
    if not total:
        return TYPE_KAPPA.schema.empty_table()
    agreed = counts.trace() / total
    by_chance = float(counts.sum(0) @ counts.sum(1)) / total**2
    row = {"rule": "tested", "n": int(total), "agreement": agreed, "expected_agreement": by_chance}
    if by_chance < 1:
        kappa = (agreed - by_chance) / (1 - by_chance)
        half = _Z * np.sqrt(agreed * (1 - agreed) / total) / (1 - by_chance)
        row |= {"kappa": kappa, "ci_low": kappa - half, "ci_high": min(kappa + half, 1.0)}
    return pa.Table.from_pylist([row], schema=TYPE_KAPPA.schema)
