"""What a neuron does over the whole dataset: moments, histogram, favourite words, tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    NEURON_TESTS,
    RESPONSES,
    ROLES,
    TableSpec,
)
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.report.site.inputs import LayerFiles, read_neurons
from neuron_atlas.tasks.report.site.script import short

_FAVOURITES = 6
_TESTED = ("rate_visual", "rate_text", "q_exact", "q_block", "q_both")


def neuron_facts(files: LayerFiles, neurons: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Of each neuron: moments by role, [tokens, mean, deviation, highest, share above 0]; the
    tokens of each histogram bin by role; responses; and the tests, where there were any."""
    facts: dict[int, dict[str, Any]] = {neuron: {} for neuron in neurons}
    for row in _rows(files.captured["moments"], MOMENTS, neurons):
        facts[row["neuron"]]["moments"] = {role: _moments(row, role) for role in ROLES}
    for neuron, counts in _histograms(files, neurons):
        facts[neuron]["histogram"] = counts
    for row in _rows(files.responses, RESPONSES, neurons):
        facts[row["neuron"]] |= _responses(row)
    if files.tested_types is not None:
        for row in _rows(files.tested_types, NEURON_TESTS, neurons):
            tested = {name: short(row[name]) for name in _TESTED}
            facts[row["neuron"]]["tested"] = {"type": row["type_tested"]} | tested
    return facts


def _rows(path: Any, spec: TableSpec, neurons: Sequence[int]) -> list[dict[str, Any]]:
    table: pa.Table = read_neurons(path, spec, neurons)
    return table.to_pylist()


def _moments(row: Mapping[str, Any], role: str) -> list[float | None]:
    count, m2 = row[f"n_{role}"], row[f"m2_{role}"]
    deviation = short((m2 / count) ** 0.5) if count and m2 is not None and m2 >= 0 else None
    mean, highest, positive = (short(row[f"{name}_{role}"]) for name in ("mean", "max", "positive"))
    return [count, mean, deviation, highest, positive]


def _histograms(
    files: LayerFiles, neurons: Sequence[int]
) -> Iterator[tuple[int, dict[str, list[int]]]]:
    table = read_neurons(files.captured["histograms"], HISTOGRAMS, neurons)
    counts = {}
    for role in ("visual", "text"):
        values = table[role].combine_chunks().flatten().to_numpy()
        counts[role] = values.reshape(-1, BLOCKS, BINS).sum(axis=1, dtype=np.int64).tolist()
    for place, neuron in enumerate(table["neuron"].to_pylist()):
        yield neuron, {role: counts[role][place] for role in counts}


def _responses(row: Mapping[str, Any]) -> dict[str, Any]:
    words = zip(row["favourites"] or (), row["favourite_shares"] or (), strict=True)
    return {
        "favourites": [[word, short(share, 3)] for word, share in words][:_FAVOURITES],
        "seen_words": (row["seen_words"] or [])[:_FAVOURITES],
        "concentration": short(row["concentration"], 3),
    }
