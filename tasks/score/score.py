"""Score explanations: predicted against real traces, beside the control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from tasks.artifacts import SCORES, list_rows
from tasks.evidence import Evidence, Excitation
from tasks.score.correlation import bootstrap_interval, pearson, sample_sums
from tasks.score.settings import ScoreSettings


def score_neurons(
    simulations: pa.Table,
    evidence: Sequence[Evidence],
    seen: Mapping[tuple[int, int], frozenset[int]],
    settings: ScoreSettings,
) -> pa.Table:
    """`scores` rows of the neurons in `simulations`, in its order.

    evidence: the scorer's, which holds the real traces. seen: for each (layer, neuron) the samples
    that its explainer saw; a simulated sample among them raises ValueError, for its score would
    prove nothing.
    """
    real = {
        (neuron.layer, neuron.neuron, excitation.sample_id): excitation
        for neuron in evidence
        for excitation in (*neuron.exemplars, *neuron.random)
    }
    types = {(neuron.layer, neuron.neuron): neuron.type for neuron in evidence}
    keys = ["layer", "neuron", "explainer", "simulator"]
    frame = pl.from_arrow(simulations.select([*keys, "claim", "sample_id", "status", "reason"]))
    assert isinstance(frame, pl.DataFrame)
    sums = _sums(simulations, frame, real, seen)
    groups = frame.with_row_index("row").group_by(keys, maintain_order=True)
    rows = []
    by_samples: dict[int, list[tuple[int, np.ndarray]]] = {}
    for place, (key, group) in enumerate(groups):
        row = dict(zip(keys, key, strict=True))
        own = group.filter((pl.col("claim") == "own") & (pl.col("status") == "ok"))
        other = group.filter((pl.col("claim") == "other") & (pl.col("status") == "ok"))
        own_sums = sums[own["row"].to_numpy()]
        rows.append(
            row
            | {"type": types[row["layer"], row["neuron"]]}
            | _score(group, own_sums, sums[other["row"].to_numpy()], settings)
        )
        if rows[-1]["correlation"] is not None:
            by_samples.setdefault(len(own), []).append((place, own_sums))
    # Neurons with equally many samples share their bootstrap draws, as one product.
    for members in by_samples.values():
        places, stacked = zip(*members, strict=True)
        low, high = bootstrap_interval(np.stack(stacked), settings.resamples, settings.seed)
        for place, below, above in zip(places, low.tolist(), high.tolist(), strict=True):
            rows[place] |= {"ci_low": _or_none(below), "ci_high": _or_none(above)}
    return pa.Table.from_pylist(rows, schema=SCORES.schema)


def _score(
    group: pl.DataFrame, own: np.ndarray, other: np.ndarray, settings: ScoreSettings
) -> dict:
    row: dict[str, float | str | None] = {
        "correlation": None,
        "ci_low": None,
        "ci_high": None,
        "control_other": None,
        "margin": None,
        "n_samples": len(own),
        "n_tokens": int(own[:, 0].sum()),
    }
    if not len(own):
        failed = group.filter(pl.col("claim") == "own").row(0, named=True)
        status = "no_explanation" if failed["status"] == "no_explanation" else "too_few_samples"
        return row | {"status": status, "reason": failed["reason"]}
    if len(own) < settings.min_samples:
        reason = f"{len(own)} held-out samples, score.min_samples is {settings.min_samples}"
        return row | {"status": "too_few_samples", "reason": reason}
    correlation = _or_none(float(pearson(own.sum(0))))
    control = _or_none(float(pearson(other.sum(0)))) if len(other) else None
    if correlation is None:
        return row | {"control_other": control} | _no_variance(own.sum(0))
    row |= {"correlation": correlation, "control_other": control}
    if control is not None:
        row["margin"] = correlation - control
        return row | {"status": "ok", "reason": ""}
    if not len(other):
        return row | {"status": "no_control", "reason": "no other explanation to compare with"}
    # A control that predicts the same everywhere has no correlation, and so no margin either.
    return row | {"status": "ok", "reason": "the control's prediction does not vary"}


def _no_variance(pooled: np.ndarray) -> dict:
    n, _, predicted, _, squares, _ = pooled
    flat = n * squares - predicted**2 <= 1e-9 * n * squares
    side = "prediction does" if flat else "real activations do"
    return {"status": "no_variance", "reason": f"the {side} not vary over the held-out samples"}


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _sums(
    simulations: pa.Table,
    frame: pl.DataFrame,
    real: Mapping[tuple[int, int, int], Excitation],
    seen: Mapping[tuple[int, int], frozenset[int]],
) -> np.ndarray:
    """Sums [rows, 6] of every simulated row against its real trace; 0 where none is to be had."""
    visual = list_rows(simulations["visual"])
    text = list_rows(simulations["text"])
    x: list[np.ndarray] = []
    y: list[np.ndarray] = []
    lengths = np.zeros(len(frame), dtype=np.int64)
    columns = (frame[name].to_list() for name in ("layer", "neuron", "sample_id", "status"))
    for row, (layer, neuron, sample_id, status) in enumerate(zip(*columns, strict=True)):
        if status != "ok":
            continue
        if sample_id in seen.get((layer, neuron), frozenset()):
            raise ValueError(
                f"neuron {layer}:{neuron} would be scored on sample {sample_id}, "
                "which its explainer saw"
            )
        excitation = real[layer, neuron, sample_id]
        x += [excitation.visual, excitation.text]
        y += [visual[row], text[row]]
        lengths[row] = len(visual[row]) + len(text[row])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    empty = [np.empty(0, np.float32)]
    return sample_sums(np.concatenate(x + empty), np.concatenate(y + empty), offsets)
