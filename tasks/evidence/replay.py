"""Run the subject again over chosen samples, and record the traces of chosen neurons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from neuron_atlas.tasks.artifacts import EVIDENCE
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.subject.batch import forward_body
from neuron_atlas.tasks.subject.batches import Batch, batches
from neuron_atlas.tasks.subject.encode import TEXT, VISUAL, EncodedSample
from neuron_atlas.tasks.subject.encoded import encoded_samples
from neuron_atlas.tasks.subject.fit_batch import fit_batch
from neuron_atlas.tasks.subject.hook_points import observing_active
from neuron_atlas.tasks.subject.load import Subject
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents, rows_at
from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError
from neuron_atlas.tasks.subject.truncate import truncated

ORDER = ("layer", "purpose", "neuron", "stratum", "rank", "sample_id")
"""Columns by which rows of `evidence` are sorted."""

_FLOAT16_MAX = torch.finfo(torch.float16).max
"""Activations beyond the float16 range are clipped to this; infinity would spoil every sum."""


@dataclass(frozen=True)
class _Rows:
    """Rows of one sample in one layer. rows: int64 [rows]. neurons: int64 [rows], of each row."""

    rows: np.ndarray
    neurons: torch.Tensor


@dataclass(frozen=True)
class _Traces:
    """The traces of all rows, by role. values: float16 [tokens of all rows]. offsets: int64
    [rows + 1], where the trace of each row begins."""

    values: dict[int, np.ndarray]
    offsets: dict[int, np.ndarray]

    def write(self, role: int, rows: np.ndarray, traces: np.ndarray) -> None:
        """Write the traces [rows, tokens] of one sample."""
        starts = self.offsets[role][rows]
        self.values[role][starts[:, None] + np.arange(traces.shape[1])] = traces


def replay(
    subject: Subject,
    chosen: pa.Table,
    catalog: Catalog,
    hook_point: HookPoint,
    batch_size: int,
    threads: int | None = None,
    on_batch: Callable[[int], None] = lambda count: None,
) -> pa.Table:
    """Return rows of `evidence`, sorted by ORDER: `chosen` with the trace of each row.

    Each sample runs through the subject once, up to the highest layer that is wanted. The traces do
    not depend on the batch size or on the other rows. threads: that open images in the background;
    None for a few with a GPU. on_batch: called with the number of samples of each batch; if the
    pass fails, with the negative total. Raises SubjectError and SampleError.
    """
    chosen = chosen.sort_by([(name, "ascending") for name in ORDER])
    if not len(chosen):
        return EVIDENCE.schema.empty_table()
    by_layer = _rows_by_layer(chosen)
    traces = _empty_traces(chosen, catalog)
    sample_ids = list(dict.fromkeys(chosen["sample_id"].to_pylist()))

    def attempt(size: int, count: Callable[[int], None]) -> None:
        samples = encoded_samples(subject, sample_ids, catalog, threads, 2 * size)
        _record(subject, _checked(samples, catalog), by_layer, traces, hook_point, size, count)

    with truncated(subject, max(by_layer)):
        fit_batch(
            batch_size,
            attempt,
            on_batch,
            "evidence",
            "explain fewer neurons at a time (explain.neurons.count), or use a device with more "
            "memory",
        )
    columns = {name: chosen[name] for name in chosen.schema.names}
    for name, role in (("visual", VISUAL), ("text", TEXT)):
        columns[name] = pa.LargeListArray.from_arrays(
            pa.array(traces.offsets[role]), pa.array(traces.values[role], pa.float16())
        )
    return pa.table(columns).cast(EVIDENCE.schema)


def _record(
    subject: Subject,
    samples: Iterable[tuple[int, EncodedSample]],
    by_layer: Mapping[int, Mapping[int, _Rows]],
    traces: _Traces,
    hook_point: HookPoint,
    batch_size: int,
    on_batch: Callable[[int], None],
) -> None:
    current: Batch | None = None
    gathered: list[tuple[list[tuple[int, np.ndarray]], torch.Tensor]] = []

    def on_activations(layer: int, activations: torch.Tensor | SparseLatents) -> None:
        """Gather [pairs of sample and neuron, tokens] of this layer, still on its device."""
        assert current is not None
        found = [
            (place, by_layer[layer][one])
            for place, one in enumerate(current.ids)
            if one in by_layer[layer]
        ]
        if not found:
            return
        place = torch.cat([torch.full_like(rows.neurons, place) for place, rows in found])
        neuron = torch.cat([rows.neurons for _, rows in found])
        device = activations.device
        values = rows_at(activations, place.to(device), neuron.to(device))
        stored = values.clamp(-_FLOAT16_MAX, _FLOAT16_MAX).half()
        gathered.append(([(place, rows.rows) for place, rows in found], stored))

    layers = sorted(by_layer)
    with observing_active(subject, layers, hook_point, on_activations), torch.inference_mode():
        for batch in batches(samples, subject.batch_size(batch_size)):
            current = batch
            gathered.clear()
            forward_body(subject, batch.inputs)
            roles = batch.roles.numpy()
            for found, stored in gathered:
                _write(traces, found, stored.cpu().numpy(), roles)
            on_batch(len(batch))


def _write(
    traces: _Traces, found: list[tuple[int, np.ndarray]], stored: np.ndarray, roles: np.ndarray
) -> None:
    """Write the traces of one layer and batch. stored: float16 [rows of all samples, tokens]."""
    start = 0
    for place, rows in found:
        of_sample = stored[start : start + len(rows)]
        for role in (VISUAL, TEXT):
            traces.write(role, rows, of_sample[:, roles[place] == role])
        start += len(rows)


def _rows_by_layer(chosen: pa.Table) -> dict[int, dict[int, _Rows]]:
    """Return the rows by layer and sample."""
    layers, sample_ids, neurons = (
        chosen[name].to_numpy().astype(np.int64) for name in ("layer", "sample_id", "neuron")
    )
    order = np.lexsort([sample_ids, layers])
    pairs = np.stack([layers, sample_ids])[:, order]
    edges = np.flatnonzero((np.diff(pairs, axis=1) != 0).any(0)) + 1
    by_layer: dict[int, dict[int, _Rows]] = {}
    for rows in np.split(order, edges):
        found = _Rows(rows, torch.from_numpy(neurons[rows]))
        by_layer.setdefault(int(layers[rows[0]]), {})[int(sample_ids[rows[0]])] = found
    return by_layer


def _empty_traces(chosen: pa.Table, catalog: Catalog) -> _Traces:
    distinct, inverse = np.unique(chosen["sample_id"].to_numpy(), return_inverse=True)
    samples = [catalog[int(one)] for one in distinct]
    lengths = {
        VISUAL: np.array([one.n_visual for one in samples], np.int64),
        TEXT: np.array([len(one.tokens) for one in samples], np.int64),
    }
    offsets = {
        role: np.concatenate([[0], counts[inverse].cumsum()]) for role, counts in lengths.items()
    }
    values = {role: np.zeros(bounds[-1], np.float16) for role, bounds in offsets.items()}
    return _Traces(values, offsets)


def _checked(
    samples: Iterable[tuple[int, EncodedSample]], catalog: Catalog
) -> Iterator[tuple[int, EncodedSample]]:
    """Yield the samples; raise SubjectError for one with other tokens than when it was captured."""
    for sample_id, encoded in samples:
        listed = catalog[sample_id]
        if (encoded.n_visual, encoded.n_text) != (listed.n_visual, len(listed.tokens)):
            raise SubjectError(
                f"sample {sample_id} has {encoded.n_visual} visual and {encoded.n_text} text "
                f"tokens, and had {listed.n_visual} and {len(listed.tokens)} when it was "
                "described: its image has changed. Restore the image, or use another folder in out="
            )
        yield sample_id, encoded
