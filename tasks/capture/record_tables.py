"""Convert a layer's record to Arrow tables, which the merge reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    NO_SAMPLE,
    RANDOM_TRACES,
    ROLES,
    TRACES,
    TableSpec,
    exemplars_spec,
)
from neuron_atlas.tasks.artifacts.histogram import BINS, BLOCKS
from neuron_atlas.tasks.capture.record import LayerRecord, Layout
from neuron_atlas.tasks.capture.top_n import unpack


@dataclass(frozen=True)
class TokenCounts:
    """Number of visual and text tokens of a sample."""

    visual: int
    text: int


def layer_tables(
    layer: int, record: LayerRecord, counts: Mapping[int, TokenCounts]
) -> list[tuple[TableSpec, pa.Table]]:
    """Return the exemplars, traces, random traces, moments and histograms of one layer.

    counts: the token counts of all samples of the shard.
    """
    keys, order = record.keys.sort(dim=1, descending=True)
    peaks, sample_ids = (values.cpu().numpy() for values in unpack(keys))
    positions = record.peak_positions.gather(1, order).cpu().numpy()
    spec = exemplars_spec(keys.shape[1])
    # Rows of `traces` follow the filled exemplar slots: neuron by neuron, strongest first.
    filled = sample_ids != NO_SAMPLE
    neuron, rank = np.nonzero(filled)
    slots = order.cpu().numpy()[filled]
    assert record.traces is not None
    traces = record.traces.cpu().numpy()[neuron, slots]
    return [
        (spec, _exemplar_table(layer, spec, sample_ids, peaks, positions, record.layout)),
        (
            TRACES,
            traces_to_arrow(
                TRACES, layer, neuron, sample_ids[filled], traces, counts, record.layout, rank
            ),
        ),
        (RANDOM_TRACES, _random_table(layer, record, counts)),
        (MOMENTS, _moment_table(layer, record)),
        (HISTOGRAMS, _histogram_table(layer, record)),
    ]


def traces_to_arrow(
    spec: TableSpec,
    layer: int,
    neuron: np.ndarray,
    sample_ids: np.ndarray,
    traces: np.ndarray,
    counts: Mapping[int, TokenCounts],
    layout: Layout,
    rank: np.ndarray | None = None,
) -> pa.Table:
    """Return traces [rows, layout.tokens] as rows of `spec`, cut to each sample's own tokens.

    neuron, sample_ids, rank: int [rows].
    """
    distinct, inverse = np.unique(sample_ids, return_inverse=True)
    per_sample = [counts[int(sample_id)] for sample_id in distinct]

    def of_rows(values: Sequence[int], dtype: type) -> np.ndarray:
        return np.asarray(values, dtype=dtype)[inverse]

    n_visual = of_rows([count.visual for count in per_sample], np.int64)
    n_text = of_rows([count.text for count in per_sample], np.int64)
    columns = {
        "layer": np.full(len(neuron), layer, dtype=np.int16),
        "neuron": neuron.astype(np.int32),
        "sample_id": sample_ids.astype(np.int32),
        "visual": _ragged(traces[:, : layout.visual], n_visual),
        "text": _ragged(traces[:, layout.visual :], n_text),
    }
    if rank is not None:
        columns["rank"] = rank.astype(np.int16)
    return pa.table(columns).select(spec.schema.names)


def _ragged(padded: np.ndarray, lengths: np.ndarray) -> pa.LargeListArray:
    is_token = np.arange(padded.shape[1]) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = pa.array(padded[is_token], type=pa.float16())
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)


def _exemplar_table(
    layer: int,
    spec: TableSpec,
    sample_ids: np.ndarray,
    peaks: np.ndarray,
    positions: np.ndarray,
    layout: Layout,
) -> pa.Table:
    neurons, top_n = sample_ids.shape
    empty = sample_ids == NO_SAMPLE
    is_text = positions >= layout.visual
    role = np.where(empty, -1, is_text).astype(np.int8)
    token = np.where(empty, -1, positions - layout.visual * is_text).astype(np.int32)

    def slots(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), top_n)

    return pa.table(
        {
            "layer": np.full(neurons, layer, dtype=np.int16),
            "neuron": np.arange(neurons, dtype=np.int32),
            "sample_id": slots(sample_ids.astype(np.int32)),
            "peak": slots(peaks),
            "peak_role": slots(role),
            "peak_token": slots(token),
        },
    ).cast(spec.schema)


def _random_table(layer: int, record: LayerRecord, counts: Mapping[int, TokenCounts]) -> pa.Table:
    assert record.random_traces is not None
    drawn = [sample_id for sample_id in record.random_slots if sample_id in counts]
    slots = [record.random_slots[sample_id] for sample_id in drawn]
    shape = (record.neurons * len(drawn), record.layout.tokens)
    traces = record.random_traces[:, slots].cpu().numpy().reshape(shape)
    neuron = np.repeat(np.arange(record.neurons), len(drawn))
    sample_ids = np.tile(np.asarray(drawn, dtype=np.int64), record.neurons)
    return traces_to_arrow(RANDOM_TRACES, layer, neuron, sample_ids, traces, counts, record.layout)


def _moment_table(layer: int, record: LayerRecord) -> pa.Table:
    statistics = record.statistics
    mean, m2 = (values.cpu().numpy() for values in statistics.mean_and_m2())
    n = (statistics.tokens[:, None] - statistics.nonfinite).cpu().numpy()
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
