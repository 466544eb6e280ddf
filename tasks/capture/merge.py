"""Merge shards of one layer into the record that one process over all samples would give.

The result has the format of a shard, so merged shards can be merged again, as a tree.
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
    exemplars_spec,
    layer_file,
    read_batches,
    read_table,
    row_count,
    write_table,
    write_table_parts,
)

_SLOTS = ("sample_id", "peak", "peak_role", "peak_token")


def merge_layer(shards: Sequence[Path], layer: int, top_n: int, folder: Path) -> None:
    """Merge one layer of `shards` (folders) into files of `folder`.

    The order of shards does not matter, and duplicates are merged once: a shard folder is named
    after its samples, so equal names mean equal content. Memory is bounded by the layer's rankings
    and histograms, plus the traces of a few hundred neurons of each shard. Raises DiskFullError.
    """
    # A retried task may list a shard twice; the moments would then count its tokens twice.
    shards = [shard for _, shard in sorted({shard.name: shard for shard in shards}.items())]

    def path_of(spec: TableSpec) -> Path:
        return folder / layer_file(spec.name, layer)

    spec = exemplars_spec(top_n)
    ranked, origin = _merge_exemplars([_read(shard, spec, layer) for shard in shards], spec)
    write_table(ranked, spec, path_of(spec))
    write_table_parts(_winning_traces(shards, layer, ranked, origin), TRACES, path_of(TRACES))
    del ranked, origin
    write_table_parts(_random_traces(shards, layer), RANDOM_TRACES, path_of(RANDOM_TRACES))
    histograms = _merge_histograms(_read(shard, HISTOGRAMS, layer) for shard in shards)
    write_table(histograms, HISTOGRAMS, path_of(HISTOGRAMS))
    del histograms
    # Written last: a layer with moments is complete.
    moments = _merge_moments([_read(shard, MOMENTS, layer) for shard in shards])
    write_table(moments, MOMENTS, path_of(MOMENTS))


def _read(shard: Path, spec: TableSpec, layer: int) -> pa.Table:
    return read_table(shard / layer_file(spec.name, layer), spec)


def _merge_exemplars(ranked: Sequence[pa.Table], spec: TableSpec) -> tuple[pa.Table, np.ndarray]:
    """Return the merged table, and for each of its slots the column int64 [neurons, N] of that
    slot in the concatenated slots of all shards."""
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
    """Return the columns int64 [neurons, top_n] of the strongest slots: by descending peak, then
    ascending sample_id, empty slots last."""
    # One integer per slot that sorts like the ranking (see top_n).
    bits = (peaks + np.float32(0)).view(np.int32)
    bits ^= (bits >> 31) & np.int32(0x7FFFFFFF)
    keys = bits.astype(np.int64)
    keys <<= 32
    keys |= 0xFFFFFFFF - sample_ids.astype(np.int64)
    keys[sample_ids == NO_SAMPLE] = np.iinfo(np.int64).min
    if keys.shape[1] > top_n:
        strongest = np.argpartition(keys, -top_n, axis=1)[:, -top_n:]
    else:
        strongest = np.broadcast_to(np.arange(keys.shape[1]), keys.shape)
    order = np.argsort(np.take_along_axis(keys, strongest, 1), axis=1)[:, ::-1]
    return np.take_along_axis(strongest, order, 1)


def _winning_traces(
    shards: Sequence[Path], layer: int, ranked: pa.Table, order: np.ndarray
) -> Iterator[pa.Table]:
    """Yield the traces of the merged exemplars in their order, one chunk of neurons at a time."""
    top_n = order.shape[1]
    filled = _slots(ranked, "sample_id") != NO_SAMPLE
    shard_of, slot_of = np.divmod(order, top_n)
    spec = exemplars_spec(top_n)
    readers = [_trace_reader(shard, TRACES, layer) for shard in shards]
    filled_in = [_slots(_read(shard, spec, layer), "sample_id") != NO_SAMPLE for shard in shards]
    for chunk in _neuron_chunks(len(filled), top_n):
        neuron, rank = np.nonzero(filled[chunk])
        shard, slot = shard_of[chunk][filled[chunk]], slot_of[chunk][filled[chunk]]
        parts, targets = [], []
        for number, (read_traces, is_filled) in enumerate(zip(readers, filled_in, strict=True)):
            target = np.flatnonzero(shard == number)
            rows = _rows_of_slots(is_filled[chunk])[neuron[target], slot[target]]
            # Copying rows in ascending order is much faster than in random order.
            ascending = np.argsort(rows, kind="stable")
            parts.append(read_traces(chunk).take(pa.array(rows[ascending])))
            targets.append(target[ascending])
        table = _scatter(parts, targets)
        column = table.schema.get_field_index("rank")
        yield table.set_column(column, "rank", pa.array(rank.astype(np.int16)))


def _random_traces(shards: Sequence[Path], layer: int) -> Iterator[pa.Table]:
    """Yield all random traces by neuron and sample, one chunk of neurons at a time."""
    readers = [_trace_reader(shard, RANDOM_TRACES, layer) for shard in shards]
    neurons = row_count(shards[0] / layer_file(MOMENTS.name, layer))
    rows = sum(row_count(shard / layer_file(RANDOM_TRACES.name, layer)) for shard in shards)
    for chunk in _neuron_chunks(neurons, max(1, rows // neurons)):
        table = pa.concat_tables([read_traces(chunk) for read_traces in readers])
        order = np.lexsort([table["sample_id"].to_numpy(), table["neuron"].to_numpy()])
        yield table.combine_chunks().take(pa.array(order))


def _neuron_chunks(neurons: int, rows_per_neuron: int) -> Iterator[slice]:
    """Yield slices of neurons whose traces fill about one row group."""
    step = max(1, ROW_GROUP // rows_per_neuron)
    return (slice(start, min(start + step, neurons)) for start in range(0, neurons, step))


def _trace_reader(shard: Path, spec: TableSpec, layer: int) -> Callable[[slice], pa.Table]:
    """Return a function that reads the rows of a chunk of neurons; call it for ascending chunks."""
    path = shard / layer_file(spec.name, layer)
    # Rows are sorted by neuron.
    neurons = read_table(path, spec, ["neuron"])["neuron"].to_numpy()
    batches = read_batches(path, spec)
    buffered: list[pa.Table] = []
    n_returned = 0

    def read_traces(chunk: slice) -> pa.Table:
        nonlocal buffered, n_returned
        stop = int(np.searchsorted(neurons, chunk.stop))
        n_rows = stop - n_returned
        while sum(map(len, buffered)) < n_rows:
            buffered.append(next(batches))
        table = pa.concat_tables([spec.schema.empty_table(), *buffered])
        remaining = table.slice(n_rows)
        buffered, n_returned = [remaining] if len(remaining) else [], stop
        return table.slice(0, n_rows).combine_chunks()

    return read_traces


def _scatter(parts: Sequence[pa.Table], targets: Sequence[np.ndarray]) -> pa.Table:
    """Concatenate the parts and move each row to its target row."""
    table = pa.concat_tables(parts).combine_chunks()
    return table.take(pa.array(np.argsort(np.concatenate(targets))))


def _rows_of_slots(filled: np.ndarray) -> np.ndarray:
    """Return the row in `traces` of each filled slot: int64 [neurons, N], neuron by neuron,
    strongest first."""
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
    (1979), which does not lose precision if the mean is large compared with the deviation."""
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
