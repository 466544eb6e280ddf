"""Merge the shards of one layer: the same record as if one process had seen every sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.artifacts import (
    MOMENTS,
    NO_SAMPLE,
    RANDOM_TRACES,
    ROLES,
    TRACES,
    TableSpec,
    exemplars,
    layer_file,
    read_table,
)


def merge_layer(shards: Sequence[Path], layer: int, top_n: int) -> list[tuple[TableSpec, pa.Table]]:
    """Merge one layer of `shards` (folders). Order does not matter, nor does a shard given twice.

    Memory is bounded by the layer: its result, and its traces of one shard.
    """
    spec = exemplars(top_n)
    # The same range twice, from a retried task, would count its tokens twice in the moments.
    shards = sorted({shard.resolve() for shard in shards})
    ranked = [read_table(shard / layer_file(spec.name, layer), spec) for shard in shards]
    merged, origin = _merge_exemplars(ranked, spec)
    winners = _winning_traces(shards, layer, _trace_rows(ranked)[origin])
    rank = np.concatenate([np.arange(count) for count in _filled(merged)])
    winners = winners.set_column(
        winners.schema.get_field_index("rank"), "rank", pa.array(rank.astype(np.int16))
    )
    random_traces = _concatenated(shards, RANDOM_TRACES, layer).sort_by(
        [("neuron", "ascending"), ("sample_id", "ascending")]
    )
    moments = _merge_moments(
        [read_table(s / layer_file(MOMENTS.name, layer), MOMENTS) for s in shards]
    )
    return [(spec, merged), (TRACES, winners), (RANDOM_TRACES, random_traces), (MOMENTS, moments)]


def _concatenated(shards: Sequence[Path], spec: TableSpec, layer: int) -> pa.Table:
    return read_table(
        [shard / layer_file(spec.name, layer) for shard in shards], spec
    ).combine_chunks()


def _merge_exemplars(ranked: Sequence[pa.Table], spec: TableSpec) -> tuple[pa.Table, np.ndarray]:
    """The merged table, and for every filled slot its index in the shards' slots side by side."""
    columns = {
        name: np.concatenate([_slots(table, name) for table in ranked], axis=1)
        for name in ("sample_id", "peak", "peak_role", "peak_token")
    }
    neurons = len(columns["peak"])
    top_n = spec.schema.field("peak").type.list_size
    strength = np.where(columns["sample_id"] == NO_SAMPLE, -np.inf, columns["peak"])
    empty_last = columns["sample_id"] == NO_SAMPLE
    # Last key first: filled slots, then the higher peak, then the lower sample_id.
    order = np.lexsort((columns["sample_id"], -strength, empty_last), axis=1)[:, :top_n]
    chosen = {name: np.take_along_axis(values, order, 1) for name, values in columns.items()}
    table = pa.table(
        {
            "layer": ranked[0]["layer"],
            "neuron": ranked[0]["neuron"],
        }
        | {
            name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), top_n)
            for name, values in chosen.items()
        }
    ).cast(spec.schema)
    flat = order + np.arange(neurons)[:, None] * strength.shape[1]
    return table, flat[chosen["sample_id"] != NO_SAMPLE]


def _winning_traces(shards: Sequence[Path], layer: int, origin: np.ndarray) -> pa.Table:
    """The traces of the winners, in their order; origin: [winners, 2], shard and row in it.

    Each shard is reduced to its winners before the next is read, so no more than one shard's
    traces are held beside the result, which alone must fit into Arrow's lists.
    """
    parts = []
    places = []
    for number, shard in enumerate(shards):
        mine = np.flatnonzero(origin[:, 0] == number)
        traces = read_table(shard / layer_file(TRACES.name, layer), TRACES)
        parts.append(traces.take(pa.array(origin[mine, 1])).combine_chunks())
        places.append(mine)
    order = np.argsort(np.concatenate(places))
    return pa.concat_tables(parts).combine_chunks().take(pa.array(order))


def _trace_rows(ranked: Sequence[pa.Table]) -> np.ndarray:
    """For every slot of the shards side by side [slots, 2]: its shard, and the row of its trace."""
    rows = []
    for number, table in enumerate(ranked):
        filled = _slots(table, "sample_id") != NO_SAMPLE
        place = np.where(filled, (np.cumsum(filled.ravel()) - 1).reshape(filled.shape), -1)
        rows.append(np.stack([np.full_like(place, number), place], axis=-1))
    return np.concatenate(rows, axis=1).reshape(-1, 2)


def _slots(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)


def _filled(table: pa.Table) -> np.ndarray:
    return (_slots(table, "sample_id") != NO_SAMPLE).sum(1)


def _merge_moments(parts: Sequence[pa.Table]) -> pa.Table:
    """Pool counts, means and squared deviations by the pairwise rule of Chan, Golub and LeVeque
    (1979), which does not lose digits where the mean is large beside the spread."""
    merged = {name: parts[0][name].to_numpy() for name in MOMENTS.schema.names}
    for part in parts[1:]:
        other = {name: part[name].to_numpy() for name in MOMENTS.schema.names}
        for role in ROLES:
            a, b = merged[f"n_{role}"], other[f"n_{role}"]
            n = a + b
            weight = b / np.maximum(n, 1)
            delta = other[f"mean_{role}"] - merged[f"mean_{role}"]
            merged[f"mean_{role}"] = merged[f"mean_{role}"] + delta * weight
            merged[f"m2_{role}"] = (
                merged[f"m2_{role}"] + other[f"m2_{role}"] + delta**2 * a * weight
            )
            merged[f"positive_{role}"] = (
                merged[f"positive_{role}"] * (1 - weight) + other[f"positive_{role}"] * weight
            )
            merged[f"max_{role}"] = np.fmax(merged[f"max_{role}"], other[f"max_{role}"])
            merged[f"n_{role}"] = n
    return pa.table(merged).select(MOMENTS.schema.names)
