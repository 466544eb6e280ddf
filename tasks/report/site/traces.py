"""Activations as a page draws them: a byte a patch and a byte a text token."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import list_rows, read_parquet
from neuron_atlas.tasks.artifacts.regions import (
    View,
    count_tokens,
    heat_over,
    read_regions,
    view_of,
)
from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.report.site.script import packed

LOUDEST = 255
"""The byte of the neuron's highest activation; 0 is silent or negative."""


@dataclass(frozen=True)
class TraceTable:
    """Traces of several neurons, looked up by neuron and sample."""

    visual: list[np.ndarray]
    text: list[np.ndarray]
    sample_ids: np.ndarray
    rows: Mapping[int, np.ndarray]
    """Of each neuron its rows, in the order of the table."""

    def of(self, neuron: int) -> dict[int, ActivationRecord]:
        """The neuron's traces by sample id."""
        return {
            int(self.sample_ids[row]): ActivationRecord(
                int(self.sample_ids[row]), self.visual[row], self.text[row]
            )
            for row in self.rows.get(neuron, ())
        }


def trace_table(table: pa.Table) -> TraceTable:
    """Index rows of `traces`, `random_traces` or `simulations`."""
    neurons = table["neuron"].to_numpy()
    order = np.argsort(neurons, kind="stable")
    found, starts = np.unique(neurons[order], return_index=True)
    rows = np.split(order, starts[1:]) if len(found) else []
    return TraceTable(
        list_rows(table["visual"]),
        list_rows(table["text"]),
        table["sample_id"].to_numpy(),
        {int(neuron): mine for neuron, mine in zip(found, rows, strict=True)},
    )


def read_views(descriptions: Sequence[Path], sample_ids: Collection[int]) -> dict[int, View]:
    """How the wanted samples are laid out as pictures; those without an image are left out."""
    views = {}
    only = [("sample_id", "in", list(sample_ids))]
    for path in descriptions if sample_ids else ():
        table = read_parquet(path, columns=["sample_id", "regions"], filters=only)
        for row in table.to_pylist():
            if row["regions"]:
                views[row["sample_id"]] = view_of(read_regions(row["regions"]))
    return views


def drawn_bytes(seen: ActivationRecord, scale: float, view: View | None) -> tuple[str, str]:
    """A trace as two base64 strings of uint8, of which `LOUDEST` stands for `scale`.

    The first is row-major over the sample's map (`heat_over`), the second has a byte a text token.
    The first is empty where the sample has no image, or another one than when it was captured.
    """
    image = ""
    if view is not None and count_tokens(view.regions) == len(seen.visual):
        loud = _bytes(seen.visual, scale)
        # Over a single grid the map is the grid.
        image = packed(loud if len(view.regions) == 1 else heat_over(view, loud).astype(np.uint8))
    return image, packed(_bytes(seen.text, scale))


def _bytes(activations: np.ndarray, scale: float) -> np.ndarray:
    if scale <= 0:
        return np.zeros(len(activations), np.uint8)
    shares = activations.astype(np.float32) * np.float32(LOUDEST / scale)
    # fmax takes the number where the other is none.
    return np.rint(np.minimum(np.fmax(shares, 0), LOUDEST)).astype(np.uint8)
