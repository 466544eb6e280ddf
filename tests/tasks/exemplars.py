"""Rows of `exemplars` worked out the slow way, from all activations of every exemplar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import exemplars_spec

Seen = tuple[int, Sequence[float], Sequence[float]]
"""A sample, with a neuron's activations at its visual and at its text tokens."""

_EMPTY: dict[str, Any] = {
    "sample_id": -1,
    "peak": np.nan,
    "peak_role": -1,
    "peak_token": -1,
    "text_peak_token": -1,
    "visual_active": 0,
    "text_active": 0,
    "visual_sum": 0.0,
    "visual_sum_sq": 0.0,
}


def exemplar_table(
    of: Mapping[int, Sequence[Seen]],
    layer: int,
    top_activations: int = 8,
    slots: int | None = None,
) -> pa.Table:
    """The rows of neurons with these exemplars, strongest first."""
    slots = slots or max([1, *map(len, of.values())])
    rows = []
    for neuron, seen in of.items():
        described = [describe(*one, top_activations) for one in seen]
        described += [_empty(top_activations)] * (slots - len(seen))
        row = {name: [slot[name] for slot in described] for name in _EMPTY}
        for role in ("visual_top", "text_top"):
            row[role] = [value for slot in described for value in slot[role]]
        rows.append(row | {"layer": layer, "neuron": neuron})
    return pa.Table.from_pylist(rows, schema=exemplars_spec(slots).schema)


def describe(
    sample_id: int, visual: Sequence[float], text: Sequence[float], top_activations: int
) -> dict[str, Any]:
    """One slot: what is stored of a sample."""
    seen = [_finite(visual), _finite(text)]
    peaks = [values.max(initial=-np.inf) for values in seen]
    role = int(peaks[1] > peaks[0])
    rectified = np.clip(seen[0], 0, None).astype(np.float64)
    has_text = np.isfinite(peaks[1])
    return {
        "sample_id": sample_id,
        "peak": np.float32(peaks[role]),
        "peak_role": role,
        "peak_token": int(np.argmax(seen[role])) if len(seen[role]) else 0,
        "visual_top": _top(seen[0], top_activations),
        "text_top": _top(seen[1], top_activations),
        "text_peak_token": int(np.argmax(seen[1])) if has_text else -1,
        "visual_active": int((seen[0] > 0).sum()),
        "text_active": int((seen[1] > 0).sum()),
        "visual_sum": np.float32(rectified.sum()),
        "visual_sum_sq": np.float32((rectified**2).sum()),
    }


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float32)
    return np.where(np.isfinite(array), array, np.float32(-np.inf))


def _top(values: np.ndarray, count: int) -> list[float]:
    best = np.sort(values[np.isfinite(values)])[::-1][:count]
    return [*best, *[np.nan] * (count - len(best))]


def _empty(top_activations: int) -> dict[str, Any]:
    nothing = [np.nan] * top_activations
    return _EMPTY | {"visual_top": nothing, "text_top": nothing}
