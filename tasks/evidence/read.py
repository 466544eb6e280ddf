"""Read the evidence of some neurons for one purpose or several."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import get_args

import pyarrow as pa

from neuron_atlas.tasks.artifacts import EVIDENCE, read_table
from neuron_atlas.tasks.artifacts.conditions import Condition
from neuron_atlas.tasks.evidence.evidence import (
    ActivationRecord,
    Evidence,
    Purpose,
    Split,
    activation_records,
)

ALL_PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

_Key = tuple[str, int, str]
"""Purpose, neuron and stratum."""


def load_evidence(
    types: pa.Table, paths: Sequence[Path], purposes: Collection[Purpose] = ALL_PURPOSES
) -> dict[Purpose, list[Evidence]]:
    """Load the evidence of the neurons in `types` (rows of one layer), in their order.

    paths: the layer's files of `evidence`. purposes: those to load; the traces of other purposes
    are not read. Exemplars come strongest first, and random samples by sample_id.
    """
    neurons = types["neuron"].to_pylist()
    columns = ["neuron", "purpose", "stratum", "sample_id", "visual", "text"]
    rows = _read(paths, columns, neurons, purposes)
    records = _records(rows)
    is_whole = set(purposes) == set(ALL_PURPOSES)
    listed = rows if is_whole else _read(paths, columns[:4], neurons, ALL_PURPOSES)
    sample_ids = _sample_ids(listed)
    splits = {
        neuron: Split(**{name: tuple(sample_ids.get((neuron, name), ())) for name in ALL_PURPOSES})
        for neuron in neurons
    }
    return {
        purpose: [
            Evidence(
                layer=row["layer"],
                neuron=row["neuron"],
                type=row["type"],
                scale=row["scale"],
                exemplars=tuple(records.get((purpose, row["neuron"], "exemplar"), {}).values()),
                random=tuple(records.get((purpose, row["neuron"], "random"), {}).values()),
                split=splits[row["neuron"]],
            )
            for row in types.to_pylist()
        ]
        for purpose in purposes
    }


def _read(
    paths: Sequence[Path],
    columns: Sequence[str],
    neurons: Sequence[int],
    purposes: Collection[Purpose],
) -> pa.Table:
    only: list[Condition] = [("purpose", "in", sorted(purposes))]
    return read_table(paths, EVIDENCE, columns, neurons=neurons, only=only)


def _records(rows: pa.Table) -> dict[_Key, dict[int, ActivationRecord]]:
    found: dict[_Key, dict[int, ActivationRecord]] = {}
    keys = zip(*(rows[name].to_pylist() for name in ("purpose", "neuron", "stratum")), strict=True)
    for key, record in zip(keys, activation_records(rows), strict=True):
        found.setdefault(key, {})[record.sample_id] = record
    return found


def _sample_ids(rows: pa.Table) -> dict[tuple[int, str], dict[int, None]]:
    found: dict[tuple[int, str], dict[int, None]] = {}
    for neuron, purpose, sample_id in zip(
        *(rows[name].to_pylist() for name in ("neuron", "purpose", "sample_id")), strict=True
    ):
        found.setdefault((neuron, purpose), {})[sample_id] = None
    return found
