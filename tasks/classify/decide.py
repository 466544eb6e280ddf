"""Combine the tests of single layers into q-values and types over all layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import pyarrow as pa

from neuron_atlas.tasks.artifacts import NEURON_TESTS, read_table, row_count, write_table
from neuron_atlas.tasks.classify.rule import RuleWithTests
from neuron_atlas.tasks.classify.tested import FIRING_TESTS, TESTS
from neuron_atlas.tasks.statistics.false_discovery import q_values


def decide_types(rule: RuleWithTests, tested: Sequence[Path], written: Sequence[Path]) -> None:
    """Add q-values and types to the `tested` files, one per layer, and write them to `written`.

    Holds only the p-values of all layers in memory: 48 bytes per neuron. Raises DiskFullError.
    """
    p = read_table(tested, NEURON_TESTS, [f"p_{name}" for name in (*TESTS, *FIRING_TESTS)])
    q = {f"q_{name}": q_values(p[f"p_{name}"].to_numpy()) for name in (*TESTS, *FIRING_TESTS)}
    lengths = (row_count(path) for path in tested)
    bounds = pairwise(accumulate(lengths, initial=0))
    for source, path, (start, stop) in zip(tested, written, bounds, strict=True):
        rows = read_table(source, NEURON_TESTS)
        for name, values in q.items():
            index = rows.schema.get_field_index(name)
            column = pa.array(values[start:stop], from_pandas=True)
            rows = rows.set_column(index, rows.schema.field(index), column)
        write_table(rule.decide(rows), NEURON_TESTS, path)
