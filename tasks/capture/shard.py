"""A shard's record as Arrow tables: written by a capture actor, read by the merge."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    write_table,
)
from tasks.capture.capture import capture
from tasks.capture.recorder import LayerRecorder, Layout
from tasks.capture.shard_plan import ShardPlan
from tasks.capture.top_n import unpack
from tasks.samples.catalog import Catalog
from tasks.subject.encode import Encoded, encode
from tasks.subject.load import Subject


@dataclass(frozen=True)
class TokenCounts:
    """A sample's visual and text tokens."""

    visual: int
    text: int


def capture_shard(
    subject: Subject,
    plan: ShardPlan,
    catalog: Catalog,
    folder: Path,
    on_batch: Callable[[int], None] = lambda count: None,
) -> None:
    """Capture a shard's samples into `folder`, which is either whole or absent."""
    recorders = capture(
        subject,
        _encoded(subject, plan, catalog),
        layers=plan.layers,
        hook_point=plan.settings.hook_point,
        top_n=plan.settings.top_n,
        layout=Layout(plan.max_visual, plan.max_text),
        random_ids=plan.random_ids,
        batch_size=plan.settings.batch_size,
        on_batch=on_batch,
    )
    counts = {
        sample_id: TokenCounts(catalog[sample_id].n_visual, len(catalog[sample_id].tokens))
        for sample_id in plan.sample_ids
    }
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    write_shard(unfinished, recorders, counts)
    try:
        unfinished.rename(folder)
    except OSError:
        # Another worker delivered the same shard first: theirs holds the same rows.
        shutil.rmtree(unfinished)


def _encoded(subject: Subject, plan: ShardPlan, catalog: Catalog) -> Iterator[tuple[int, Encoded]]:
    for sample_id in plan.sample_ids:
        sample = catalog[sample_id]
        yield sample_id, encode(subject, catalog.open_images(sample_id), sample.text)


def write_shard(
    folder: Path, recorders: Mapping[int, LayerRecorder], counts: Mapping[int, TokenCounts]
) -> None:
    """Write what every layer's recorder holds; `counts` by sample_id trims the traces."""
    for layer, recorder in recorders.items():
        for spec, table in layer_tables(layer, recorder, counts):
            write_table(table, spec, folder / layer_file(spec.name, layer))


def layer_tables(
    layer: int, recorder: LayerRecorder, counts: Mapping[int, TokenCounts]
) -> list[tuple[TableSpec, pa.Table]]:
    """The exemplars, traces, random traces and moments of one layer."""
    keys, order = recorder.keys.sort(dim=1, descending=True)
    peaks, sample_ids = (values.cpu().numpy() for values in unpack(keys))
    places = recorder.peak_places.gather(1, order).cpu().numpy()
    spec = exemplars(keys.shape[1])
    # Rows of `traces` follow the exemplars: neuron by neuron, strongest first, none empty.
    filled = sample_ids != NO_SAMPLE
    neuron, rank = np.nonzero(filled)
    slots = order.cpu().numpy()[filled]
    traces = recorder.traces.cpu().numpy()[neuron, slots]
    return [
        (spec, _exemplar_table(layer, spec, sample_ids, peaks, places, recorder.layout)),
        (
            TRACES,
            trace_table(
                TRACES, layer, neuron, sample_ids[filled], traces, counts, recorder.layout, rank
            ),
        ),
        (RANDOM_TRACES, _random_table(layer, recorder, counts)),
        (MOMENTS, _moment_table(layer, recorder)),
    ]


def trace_table(
    spec: TableSpec,
    layer: int,
    neuron: np.ndarray,
    sample_ids: np.ndarray,
    traces: np.ndarray,
    counts: Mapping[int, TokenCounts],
    layout: Layout,
    rank: np.ndarray | None = None,
) -> pa.Table:
    """Traces [rows, layout.tokens] cut to each sample's own tokens, as rows of `spec`."""
    known, inverse = np.unique(sample_ids, return_inverse=True)
    per_sample = [counts[int(sample_id)] for sample_id in known]

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


def _ragged(padded: np.ndarray, lengths: np.ndarray) -> pa.ListArray:
    keep = np.arange(padded.shape[1]) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(padded[keep], type=pa.float16()))


def _exemplar_table(
    layer: int,
    spec: TableSpec,
    sample_ids: np.ndarray,
    peaks: np.ndarray,
    places: np.ndarray,
    layout: Layout,
) -> pa.Table:
    neurons, top_n = sample_ids.shape
    empty = sample_ids == NO_SAMPLE
    is_text = places >= layout.visual
    role = np.where(empty, -1, is_text).astype(np.int8)
    token = np.where(empty, -1, places - layout.visual * is_text).astype(np.int32)

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


def _random_table(
    layer: int, recorder: LayerRecorder, counts: Mapping[int, TokenCounts]
) -> pa.Table:
    mine = [sample_id for sample_id in recorder.random_slots if sample_id in counts]
    slots = [recorder.random_slots[sample_id] for sample_id in mine]
    neurons = len(recorder.random_traces)
    traces = (
        recorder.random_traces[:, slots]
        .cpu()
        .numpy()
        .reshape(neurons * len(mine), recorder.layout.tokens)
    )
    neuron = np.repeat(np.arange(neurons), len(mine))
    sample_ids = np.tile(np.asarray(mine, dtype=np.int64), neurons)
    return trace_table(RANDOM_TRACES, layer, neuron, sample_ids, traces, counts, recorder.layout)


def _moment_table(layer: int, recorder: LayerRecorder) -> pa.Table:
    moments = recorder.moments
    tokens = moments.tokens.cpu().numpy()
    mean, m2 = (values.cpu().numpy() for values in moments.mean_and_m2())
    positive = moments.positive.cpu().numpy()
    maximum = moments.maximum.cpu().numpy()
    neurons = mean.shape[1]
    columns: dict[str, np.ndarray] = {
        "layer": np.full(neurons, layer, dtype=np.int16),
        "neuron": np.arange(neurons, dtype=np.int32),
    }
    for index, role in enumerate(ROLES):
        columns |= {
            f"n_{role}": np.full(neurons, tokens[index], dtype=np.int64),
            f"mean_{role}": mean[index],
            f"m2_{role}": m2[index],
            f"max_{role}": np.where(tokens[index] > 0, maximum[index], np.nan),
            f"positive_{role}": positive[index] / max(tokens[index], 1.0),
        }
    return pa.table(columns).select(MOMENTS.schema.names)
