"""Merge shards of one layer into the record that one process over all samples would give.

The result has the format of a shard, so merged shards can be merged again, as a tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    NO_SAMPLE,
    ROLES,
    TableSpec,
    exemplars_spec,
    in_shard,
    layer_file,
    read_table,
    slot_values,
    write_table,
)


def merge_layer(
    shards: Sequence[Path], layer: int, top_n: int, folder: Path, is_shard: bool = False
) -> None:
    """Merge one layer of `shards` (folders) into files of `folder`.

    The order of shards does not matter, and duplicates are merged once: a shard folder is named
    after its samples, so equal names mean equal content. Memory is bounded by one column of the
    exemplars of all shards and a few columns of the merged layer. is_shard: whether the merged
    layer will be merged again. Raises DiskFullError.
    """
    # A retried task may list a shard twice; the moments would then count its tokens twice.
    shards = [shard for _, shard in sorted({shard.name: shard for shard in shards}.items())]

    def write(table: pa.Table, spec: TableSpec) -> None:
        written = in_shard(spec) if is_shard else spec
        write_table(table, written, folder / layer_file(written, layer))

    spec = exemplars_spec(top_n)
    write(_merge_exemplars(shards, layer, spec), spec)
    write(_merge_histograms(_read(shard, HISTOGRAMS, layer) for shard in shards), HISTOGRAMS)
    # Written last: a layer with moments is complete.
    write(_merge_moments([_read(shard, MOMENTS, layer) for shard in shards]), MOMENTS)


def _read(
    shard: Path, spec: TableSpec, layer: int, columns: Sequence[str] | None = None
) -> pa.Table:
    return read_table(shard / layer_file(in_shard(spec), layer), spec, columns)


def _merge_exemplars(shards: Sequence[Path], layer: int, spec: TableSpec) -> pa.Table:
    top_n = spec.schema.field("peak").type.list_size
    ranked = [
        _read(shard, spec, layer, ["layer", "neuron", "peak", "sample_id"]) for shard in shards
    ]
    peaks, sample_ids = (
        np.concatenate([slot_values(table, name) for table in ranked], axis=1)
        for name in ("peak", "sample_id")
    )
    order = _strongest(peaks, sample_ids, top_n)
    shard_of, slot_of = np.divmod(order.astype(np.int32), np.int32(top_n))
    # The winning slots of each shard, as (flat target, flat source) indices.
    rows = np.arange(len(order), dtype=np.int64)[:, None] * top_n
    winners = []
    for number in range(len(shards)):
        target = np.flatnonzero(shard_of == number)
        winners.append((target, (rows + slot_of).ravel()[target]))
    columns: dict[str, pa.Array] = {name: ranked[0][name] for name in ("layer", "neuron")}
    del ranked, peaks, sample_ids
    for field in spec.schema:
        if field.name not in columns:
            parts = (_read(shard, spec, layer, [field.name])[field.name] for shard in shards)
            columns[field.name] = _merge_slots(parts, winners, order.shape, field.type)
    return pa.table(columns, spec.schema)


def _merge_slots(
    parts: Iterable[pa.ChunkedArray],
    winners: Sequence[tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, ...],
    kind: pa.DataType,
) -> pa.Array:
    """Return a column of the merged exemplars, of type `kind`.

    parts: the column in each shard. winners: for each shard, the merged slots that it fills and its
    own slots, flat indices. shape: neurons and slots per neuron.
    """
    merged: np.ndarray | None = None
    for part, (target, source) in zip(parts, winners, strict=True):
        values = part.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        # Of equal length: one value per slot, or several.
        values = values.reshape(shape[0] * shape[1], -1)
        if merged is None:
            merged = np.empty_like(values)
        merged[target] = values[source]
    assert merged is not None
    return _list_column(merged, shape[0], kind)


def _list_column(values: np.ndarray, rows: int, kind: pa.DataType) -> pa.Array:
    """Return `rows` lists of type `kind`, of equal length."""
    flat = pa.array(values.ravel(), kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    offsets = np.arange(rows + 1, dtype=np.int32) * np.int32(len(flat) // max(1, rows))
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=kind)


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


def _merge_histograms(parts: Iterator[pa.Table]) -> pa.Table:
    first = next(parts)
    totals = {role: slot_values(first, role).copy() for role in ("visual", "text")}
    for part in parts:
        for role, total in totals.items():
            total += slot_values(part, role)
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
