"""Reduce a layer's traces to the peaks and the visual concentration of each exemplar."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts.location import open_for_arrow


@dataclass(frozen=True)
class Peaks:
    """Peaks of a layer's exemplars; all arrays are [exemplars].

    visual, text: highest activation by role, -inf if the sample has no such tokens. text_token:
    index of the text peak among the text tokens. concentration: see `concentration`.
    """

    neuron: np.ndarray
    sample_id: np.ndarray
    visual: np.ndarray
    text: np.ndarray
    text_token: np.ndarray
    concentration: np.ndarray


def read_peaks(traces: Path) -> Peaks:
    """Read the peaks from one layer's `traces` file, one row group at a time."""
    columns = ["neuron", "sample_id", "visual", "text"]
    with open_for_arrow(traces) as opened:
        file = pq.ParquetFile(opened)
        groups = (file.read_row_group(index, columns) for index in range(file.num_row_groups))
        parts = [_reduce(group) for group in groups]
        parts = parts or [_reduce(file.schema_arrow.empty_table().select(columns))]
    return Peaks(
        *(np.concatenate([getattr(part, spec.name) for part in parts]) for spec in fields(Peaks))
    )


def concentration(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the concentration of each row's activations, float64 [rows]: 0 if even, 1 if all are
    at a single token.

    values: the rows, concatenated; negative values count as 0. lengths: int [rows]. NaN if a row
    has no positive value or less than two tokens. The measure is (1 - mean(r)^2 / mean(r^2)) /
    (1 - 1 / n) (Vinje and Gallant, Science 287, 2000, after Treves and Rolls).
    """
    positive = np.clip(values, 0, None).astype(np.float64)
    total, square = _sums(positive, lengths), _sums(positive**2, lengths)
    defined = (lengths > 1) & (square > 0)
    undefined = np.full(len(lengths), np.nan)
    evenness = np.divide(total**2, lengths * square, out=undefined, where=defined)
    return (1 - evenness) / (1 - 1 / np.maximum(lengths, 2))


def _reduce(traces: pa.Table) -> Peaks:
    visual, visual_lengths = _flat(traces["visual"])
    text, text_lengths = _flat(traces["text"])
    text_peak = _maxima(text, text_lengths)
    positions = np.arange(len(text)) - np.repeat(
        np.cumsum(text_lengths) - text_lengths, text_lengths
    )
    at_peak = text == np.repeat(text_peak, text_lengths)
    # The first of equal peaks: the maximum of the negative positions.
    first = -_maxima(np.where(at_peak, -positions, -np.inf), text_lengths)
    return Peaks(
        neuron=traces["neuron"].to_numpy(),
        sample_id=traces["sample_id"].to_numpy(),
        visual=_maxima(visual, visual_lengths),
        text=text_peak,
        text_token=np.where(text_lengths > 0, first, 0).astype(np.int64),
        concentration=concentration(visual, visual_lengths),
    )


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the concatenated rows of a list column, float32, and their lengths."""
    rows = column.combine_chunks()
    lengths = np.diff(rows.offsets.to_numpy())
    return rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32), lengths


def _maxima(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the maximum of each row; -inf for an empty row."""
    return _reduced(np.maximum, values, lengths, -np.inf)


def _sums(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return _reduced(np.add, values, lengths, 0.0)


def _reduced(by: np.ufunc, values: np.ndarray, lengths: np.ndarray, empty: float) -> np.ndarray:
    results = np.full(len(lengths), empty)
    filled = np.flatnonzero(lengths)  # reduceat gives an empty row its neighbor's value.
    if len(filled):
        results[filled] = by.reduceat(values, (np.cumsum(lengths) - lengths)[filled])
    return results
