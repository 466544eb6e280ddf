"""Convert a layer's record to Arrow tables, which the merge reads."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    NO_SAMPLE,
    ROLES,
    TableSpec,
    exemplars_spec,
)
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.capture.record import LayerRecord
from neuron_atlas.tasks.capture.top_n import unpack
from neuron_atlas.tasks.subject.batches import FIRST_TEXT


def layer_tables(layer: int, record: LayerRecord) -> list[tuple[TableSpec, pa.Table]]:
    """Return the exemplars, moments and histograms of one layer."""
    spec = exemplars_spec(record.keys.shape[1])
    return [
        (spec, _exemplar_table(layer, spec, record)),
        (MOMENTS, _moment_table(layer, record)),
        (HISTOGRAMS, _histogram_table(layer, record)),
    ]


def _exemplar_table(layer: int, spec: TableSpec, record: LayerRecord) -> pa.Table:
    keys, order = record.keys.sort(dim=1, descending=True)
    peaks, sample_ids = unpack(keys)
    positions = record.peak_positions.gather(1, order)
    is_text = positions >= FIRST_TEXT
    empty = sample_ids == NO_SAMPLE
    role = is_text.to(torch.int8).masked_fill(empty, -1)
    token = torch.where(is_text, positions - FIRST_TEXT, positions).masked_fill(empty, -1)
    summaries = record.slots

    def slots(values: torch.Tensor) -> pa.Array:
        flat = pa.array(values.cpu().numpy().ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])

    return pa.table(
        {
            **_neuron_columns(layer, record),
            "sample_id": slots(sample_ids.int()),
            "peak": slots(peaks),
            "peak_role": slots(role),
            "peak_token": slots(token),
            **{
                f"{role}_top": _flattened_top(top, order)
                for role, top in zip(("visual", "text"), summaries.top, strict=True)
            },
            "text_peak_token": slots(summaries.text_peak_token.gather(1, order)),
            **{
                f"{role}_active": slots(active.gather(1, order))
                for role, active in zip(("visual", "text"), summaries.active, strict=True)
            },
            "visual_sum": slots(summaries.visual_sum.gather(1, order)),
            "visual_sum_sq": slots(summaries.visual_sum_sq.gather(1, order)),
        },
    ).cast(spec.schema)


def _flattened_top(top: torch.Tensor, order: torch.Tensor) -> pa.ListArray:
    """Return the highest activations [neurons, N, K] in the order of the slots, NaN if missing."""
    neurons, n_slots, _ = top.shape
    # One index per slot: its activations are contiguous, and copied together.
    first = torch.arange(neurons, device=order.device)[:, None] * n_slots
    values = top.flatten(0, 1)[(order + first).flatten()].reshape(neurons, -1)
    values = values.masked_fill_(values.isneginf(), torch.nan).float().cpu().numpy()
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))


def _moment_table(layer: int, record: LayerRecord) -> pa.Table:
    statistics = record.statistics
    mean, m2 = (values.cpu().numpy() for values in statistics.mean_and_m2())
    n = (statistics.tokens - statistics.nonfinite).cpu().numpy()
    nonfinite = statistics.nonfinite.cpu().numpy()
    positive = statistics.positive.cpu().numpy()
    maximum = statistics.maximum.cpu().numpy()
    columns = _neuron_columns(layer, record)
    for index, role in enumerate(ROLES):
        columns |= {
            f"n_{role}": n[index],
            f"mean_{role}": mean[index],
            f"m2_{role}": m2[index],
            f"max_{role}": np.where(n[index] > 0, maximum[index], np.nan),
            f"positive_{role}": positive[index] / np.maximum(n[index], 1),
            f"nonfinite_{role}": nonfinite[index],
        }
    return pa.table(columns).select(MOMENTS.schema.names)


def _histogram_table(layer: int, record: LayerRecord) -> pa.Table:
    counts = record.statistics.histogram.transpose(1, 2).contiguous().cpu().numpy()
    columns = _neuron_columns(layer, record) | {
        role: pa.FixedSizeListArray.from_arrays(pa.array(role_counts.ravel()), BLOCKS * BINS)
        for role, role_counts in zip(("visual", "text"), counts, strict=True)
    }
    return pa.table(columns).cast(HISTOGRAMS.schema)


def _neuron_columns(layer: int, record: LayerRecord) -> dict[str, np.ndarray]:
    return {
        "layer": np.full(record.neurons, layer, dtype=np.int16),
        "neuron": np.arange(record.neurons, dtype=np.int32),
    }
