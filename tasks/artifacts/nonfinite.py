"""Count the activations of a layer that are infinite or NaN. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts.captured import MOMENTS
from neuron_atlas.tasks.artifacts.files import read_table

_ROLES = ("visual", "text")


def count_nonfinite(path: Path | Sequence[Path]) -> tuple[int, int]:
    """Return how many visual and text activations in files of `moments` are infinite or NaN, and
    how many there are."""
    columns = [f"{kind}_{role}" for kind in ("n", "nonfinite") for role in _ROLES]
    moments = read_table(path, MOMENTS, columns)
    finite, nonfinite = (
        sum(pc.sum(moments[f"{kind}_{role}"]).as_py() or 0 for role in _ROLES)
        for kind in ("n", "nonfinite")
    )
    return nonfinite, finite + nonfinite


def nonfinite_outcomes(layers: Sequence[tuple[int, Sequence[Path]]]) -> pa.Table:
    """Return counts of the activations of layers, as rows with status, reason and count.

    layers: pairs of a layer and its files of `moments`.
    """
    counts = [(layer, *count_nonfinite(path)) for layer, path in layers]
    rows = [
        {"status": "nonfinite", "reason": f"layer {layer}: infinite or NaN", "count": nonfinite}
        for layer, nonfinite, _ in counts
        if nonfinite
    ]
    finite = sum(total - nonfinite for _, nonfinite, total in counts)
    rows.append({"status": "ok", "reason": "", "count": finite})
    schema = pa.schema([("status", pa.string()), ("reason", pa.string()), ("count", pa.int64())])
    return pa.Table.from_pylist(rows, schema=schema)
