"""What a layer's traces come down to: per exemplar its peaks, and how an image excites."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts.location import reading


@dataclass(frozen=True)
class Peaks:
    """A layer's exemplars, all arrays [exemplars]; a peak is -inf where a role has no tokens.

    text_place: index of the text peak among the text tokens. concentration: see `concentration`.
    """

    neuron: np.ndarray
    sample_id: np.ndarray
    visual: np.ndarray
    text: np.ndarray
    text_place: np.ndarray
    concentration: np.ndarray


def read_peaks(traces: Path) -> Peaks:
    """Read one layer's file of `traces`, one row group at a time."""
    columns = ["neuron", "sample_id", "visual", "text"]
    with reading(traces) as opened:
        file = pq.ParquetFile(opened)
        groups = (file.read_row_group(place, columns) for place in range(file.num_row_groups))
        parts = [_reduce(group) for group in groups]
        parts = parts or [_reduce(file.schema_arrow.empty_table().select(columns))]
    return Peaks(
        *(np.concatenate([getattr(part, spec.name) for part in parts]) for spec in fields(Peaks))
    )


def concentration(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """How unevenly each row's activations lie, float64 [rows]: 0 even, 1 all at a single token.

    values: the rows one after the other; negative ones count as 0. NaN for a row that is nowhere
    positive, or of less than two tokens. Vinje and Gallant, Science 287 (2000), after Treves and
    Rolls: (1 - mean(r)^2 / mean(r^2)) / (1 - 1 / n).
    """
    positive = np.clip(values, 0, None).astype(np.float64)
    total, square = _sums(positive, lengths), _sums(positive**2, lengths)
    known = (lengths > 1) & (square > 0)
    evenness = np.divide(total**2, lengths * square, out=np.full(len(lengths), np.nan), where=known)
    return (1 - evenness) / (1 - 1 / np.maximum(lengths, 2))


def _reduce(traces: pa.Table) -> Peaks:
    visual, visual_lengths = _flat(traces["visual"])
    text, text_lengths = _flat(traces["text"])
    text_peak = _maxima(text, text_lengths)
    places = np.arange(len(text)) - np.repeat(np.cumsum(text_lengths) - text_lengths, text_lengths)
    at_peak = text == np.repeat(text_peak, text_lengths)
    # The first of equal peaks: the maximum of negative places.
    first = -_maxima(np.where(at_peak, -places, -np.inf), text_lengths)
    return Peaks(
        neuron=traces["neuron"].to_numpy(),
        sample_id=traces["sample_id"].to_numpy(),
        visual=_maxima(visual, visual_lengths),
        text=text_peak,
        text_place=np.where(text_lengths > 0, first, 0).astype(np.int64),
        concentration=concentration(visual, visual_lengths),
    )


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a list column one after the other, float32, and their lengths."""
    rows = column.combine_chunks()
    lengths = np.diff(rows.offsets.to_numpy())
    return rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32), lengths


def _maxima(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The maximum of each row, -inf for one without values."""
    return _reduced(np.maximum, values, lengths, -np.inf)


def _sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return _reduced(np.add, values, lengths, 0.0)


def _reduced(by: np.ufunc, values: np.ndarray, lengths: np.ndarray, empty: float) -> np.ndarray:
    found = np.full(len(lengths), empty)
    filled = np.flatnonzero(lengths)  # reduceat gives an empty row its neighbour's value.
    if len(filled):
        found[filled] = by.reduceat(values, (np.cumsum(lengths) - lengths)[filled])
    return found
