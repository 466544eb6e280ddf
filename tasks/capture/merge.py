"""Merge shards of one layer: the same record as if one process had seen every sample.

What comes out has the form of a shard, so merges can be merged again, as a tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    NO_SAMPLE,
    RANDOM_TRACES,
    ROLES,
    ROW_GROUP,
    TRACES,
    TableSpec,
    exemplars,
    layer_file,
    read_batches,
    read_table,
    row_count,
    write_table,
    write_tables,
)

_SLOTS = ("sample_id", "peak", "peak_role", "peak_token")


def merge_layer(shards: Sequence[Path], layer: int, top_n: int, folder: Path) -> None:
    """Merge one layer of `shards` (folders) into files of `folder`.

    Order does not matter, nor does a shard given twice: a shard's folder is named by the samples
    that it holds, so one of the same name holds the same. Memory is bounded by the layer's
    rankings and histograms, and the traces of a few hundred neurons of each shard.
    """
    # The same samples twice, from a retried task, would count their tokens twice in the moments.
    shards = [shard for _, shard in sorted({shard.name: shard for shard in shards}.items())]

    def into(spec: TableSpec) -> Path:
        return folder / layer_file(spec.name, layer)

    spec = exemplars(top_n)
    ranked, origin = _merge_exemplars([_read(shard, spec, layer) for shard in shards], spec)
    write_table(ranked, spec, into(spec))
    write_tables(_winning_traces(shards, layer, ranked, origin), TRACES, into(TRACES))
    del ranked, origin
    write_tables(_random_traces(shards, layer), RANDOM_TRACES, into(RANDOM_TRACES))
    histograms = _merge_histograms(_read(shard, HISTOGRAMS, layer) for shard in shards)
    write_table(histograms, HISTOGRAMS, into(HISTOGRAMS))
    del histograms
    # Last, so that a layer that has moments is whole.
    moments = _merge_moments([_read(shard, MOMENTS, layer) for shard in shards])
    write_table(moments, MOMENTS, into(MOMENTS))


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
) -> Iterator[pa.Table]:
    """The traces of the merged exemplars in their order, some neurons after the other."""
    top_n = order.shape[1]
    filled = _slots(ranked, "sample_id") != NO_SAMPLE
    shard_of, slot_of = np.divmod(order, top_n)
    spec = exemplars(top_n)
    traces = [_traces_by_neuron(shard, TRACES, layer) for shard in shards]
    held = [_slots(_read(shard, spec, layer), "sample_id") != NO_SAMPLE for shard in shards]
    for some in _neurons_at_once(len(filled), top_n):
        neuron, rank = np.nonzero(filled[some])
        shard, slot = shard_of[some][filled[some]], slot_of[some][filled[some]]
        parts, places = [], []
        for number, (mine, given) in enumerate(zip(traces, held, strict=True)):
            won = np.flatnonzero(shard == number)
            rows = _rows_of_slots(given[some])[neuron[won], slot[won]]
            # One row after another is copied much faster than rows from anywhere.
            ascending = np.argsort(rows, kind="stable")
            parts.append(mine(some).take(pa.array(rows[ascending])))
            places.append(won[ascending])
        table = _in_place(parts, places)
        column = table.schema.get_field_index("rank")
        yield table.set_column(column, "rank", pa.array(rank.astype(np.int16)))


def _random_traces(shards: Sequence[Path], layer: int) -> Iterator[pa.Table]:
    """All random traces by neuron and sample, some neurons after the other."""
    traces = [_traces_by_neuron(shard, RANDOM_TRACES, layer) for shard in shards]
    neurons = row_count(shards[0] / layer_file(MOMENTS.name, layer))
    rows = sum(row_count(shard / layer_file(RANDOM_TRACES.name, layer)) for shard in shards)
    for some in _neurons_at_once(neurons, max(1, rows // neurons)):
        table = pa.concat_tables([mine(some) for mine in traces])
        order = np.lexsort([table["sample_id"].to_numpy(), table["neuron"].to_numpy()])
        yield table.combine_chunks().take(pa.array(order))


def _neurons_at_once(neurons: int, rows_each: int) -> Iterator[slice]:
    """All neurons in runs whose traces make up a row group."""
    step = max(1, ROW_GROUP // rows_each)
    return (slice(start, min(start + step, neurons)) for start in range(0, neurons, step))


def _traces_by_neuron(shard: Path, spec: TableSpec, layer: int) -> Callable[[slice], pa.Table]:
    """Gives the rows of one run of neurons after the other, which are read as they are wanted."""
    path = shard / layer_file(spec.name, layer)
    # Rows of a neuron lie together, and neurons in their order.
    neurons = read_table(path, spec, ["neuron"])["neuron"].to_numpy()
    batches = read_batches(path, spec)
    waiting: list[pa.Table] = []
    given = 0

    def rows_of(some: slice) -> pa.Table:
        nonlocal waiting, given
        stop = int(np.searchsorted(neurons, some.stop))
        while sum(map(len, waiting)) < stop - given:
            waiting.append(next(batches))
        together = pa.concat_tables([spec.schema.empty_table(), *waiting])
        wanted, left = together.slice(0, stop - given), together.slice(stop - given)
        waiting, given = [left] if len(left) else [], stop
        return wanted.combine_chunks()

    return rows_of


def _in_place(parts: Sequence[pa.Table], places: Sequence[np.ndarray]) -> pa.Table:
    """The rows of all parts, each at its place."""
    together = pa.concat_tables(parts).combine_chunks()
    return together.take(pa.array(np.argsort(np.concatenate(places))))


def _rows_of_slots(filled: np.ndarray) -> np.ndarray:
    """The row of `traces` [neurons, N] of each filled slot: neuron by neuron, strongest first."""
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
