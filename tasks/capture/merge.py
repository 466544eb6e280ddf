"""Merge shards of one layer: the same record as if one process had seen every sample.

What comes out has the form of a shard, so merges can be merged again, as a tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    NO_SAMPLE,
    RANDOM_TRACES,
    ROLES,
    TRACES,
    TableSpec,
    exemplars,
    layer_file,
    read_table,
    write_table,
)

_SLOTS = ("sample_id", "peak", "peak_role", "peak_token")


def merge_layer(shards: Sequence[Path], layer: int, top_n: int, folder: Path) -> None:
    """Merge one layer of `shards` (folders) into files of `folder`.

    Order does not matter, nor does a shard given twice: a shard's folder is named by the samples
    that it holds, so one of the same name holds the same. Memory is bounded by the layer's
    rankings, and the traces of the merged layer.
    """
    # The same samples twice, from a retried task, would count their tokens twice in the moments.
    shards = [shard for _, shard in sorted({shard.name: shard for shard in shards}.items())]
    for spec, table in _merged(shards, layer, exemplars(top_n)):
        write_table(table, spec, folder / layer_file(spec.name, layer))


def _merged(
    shards: Sequence[Path], layer: int, spec: TableSpec
) -> Iterator[tuple[TableSpec, pa.Table]]:
    ranked, origin = _merge_exemplars([_read(shard, spec, layer) for shard in shards], spec)
    yield spec, ranked
    yield TRACES, _winning_traces(shards, layer, ranked, origin)
    del ranked, origin
    random_traces = pa.concat_tables(_read(shard, RANDOM_TRACES, layer) for shard in shards)
    yield (
        RANDOM_TRACES,
        random_traces.combine_chunks().sort_by(
            [("neuron", "ascending"), ("sample_id", "ascending")]
        ),
    )
    del random_traces
    yield HISTOGRAMS, _merge_histograms(_read(shard, HISTOGRAMS, layer) for shard in shards)
    # Last, so that a layer that has moments is whole.
    yield MOMENTS, _merge_moments([_read(shard, MOMENTS, layer) for shard in shards])


def _read(shard: Path, spec: TableSpec, layer: int) -> pa.Table:
    return read_table(shard / layer_file(spec.name, layer), spec)


def _merge_exemplars(ranked: Sequence[pa.Table], spec: TableSpec) -> tuple[pa.Table, np.ndarray]:
    """The merged table, and for its filled slots, row by row, their places among the slots of
    the shards side by side."""
    columns = {
        name: np.concatenate([_slots(table, name) for table in ranked], axis=1) for name in _SLOTS
    }
    top_n = spec.schema.field("peak").type.list_size
    order = _strongest(columns["peak"], columns["sample_id"], top_n)
    chosen = {name: np.take_along_axis(values, order, 1) for name, values in columns.items()}
    table = pa.table(
        {"layer": ranked[0]["layer"], "neuron": ranked[0]["neuron"]}
        | {
            name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), top_n)
            for name, values in chosen.items()
        }
    ).cast(spec.schema)
    return table, order


def _strongest(peaks: np.ndarray, sample_ids: np.ndarray, top_n: int) -> np.ndarray:
    """Columns int64 [neurons, top_n] of the strongest slots: the higher peak first, then the
    lower sample_id, empty slots last."""
    # One integer a slot that sorts as the ranking does (see top_n), so that nothing is compared
    # but integers.
    bits = (peaks + np.float32(0)).view(np.int32)
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    keys = bits.astype(np.int64)
    keys <<= 32
    keys |= 0xFFFFFFFF - sample_ids.astype(np.int64)
    keys[sample_ids == NO_SAMPLE] = np.iinfo(np.int64).min
    if keys.shape[1] > top_n:
        first = np.argpartition(keys, -top_n, axis=1)[:, -top_n:]
    else:
        first = np.broadcast_to(np.arange(keys.shape[1]), keys.shape)
    order = np.argsort(np.take_along_axis(keys, first, 1), axis=1)[:, ::-1]
    return np.take_along_axis(first, order, 1)


def _winning_traces(
    shards: Sequence[Path], layer: int, ranked: pa.Table, order: np.ndarray
) -> pa.Table:
    """The traces of the merged exemplars, in their order.

    Each shard is reduced to its winners before the next is read, so no more than one shard's
    traces are held beside the result, which alone must fit into Arrow's lists.
    """
    top_n = order.shape[1]
    filled = _slots(ranked, "sample_id") != NO_SAMPLE
    neuron, rank = np.nonzero(filled)
    shard, slot = np.divmod(order[filled], top_n)
    parts = []
    places = []
    for number, path in enumerate(shards):
        mine = np.flatnonzero(shard == number)
        rows = _rows_of_slots(_read(path, exemplars(top_n), layer))[neuron[mine], slot[mine]]
        traces = _read(path, TRACES, layer)
        # One row after another is copied much faster than rows from anywhere.
        ascending = np.argsort(rows, kind="stable")
        parts.append(traces.take(pa.array(rows[ascending])).combine_chunks())
        places.append(mine[ascending])
    together = pa.concat_tables(parts).combine_chunks()
    table = together.take(pa.array(np.argsort(np.concatenate(places))))
    column = table.schema.get_field_index("rank")
    return table.set_column(column, "rank", pa.array(rank.astype(np.int16)))


def _rows_of_slots(ranked: pa.Table) -> np.ndarray:
    """The row of `traces` [neurons, N] of each filled slot: neuron by neuron, strongest first."""
    filled = _slots(ranked, "sample_id") != NO_SAMPLE
    return (np.cumsum(filled.ravel()) - 1).reshape(filled.shape)


def _slots(table: pa.Table, name: str) -> np.ndarray:
    column = table[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)


def _merge_histograms(parts: Iterator[pa.Table]) -> pa.Table:
    first = next(parts)
    totals = {role: _slots(first, role).copy() for role in ("visual", "text")}
    for part in parts:
        for role, total in totals.items():
            total += _slots(part, role)
    return pa.table(
        {"layer": first["layer"], "neuron": first["neuron"]}
        | {
            role: pa.FixedSizeListArray.from_arrays(pa.array(total.ravel()), total.shape[1])
            for role, total in totals.items()
        }
    ).cast(HISTOGRAMS.schema)


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
            merged[f"nonfinite_{role}"] = merged[f"nonfinite_{role}"] + other[f"nonfinite_{role}"]
            merged[f"n_{role}"] = n
    return pa.table(merged).select(MOMENTS.schema.names)
