"""Type neurons by the paper's rule: a neuron has the type of most of its exemplars.

Xu et al., "Deciphering Functions of Neurons in Vision-Language Models", arXiv 2502.18485.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Interval

from neuron_atlas.tasks.artifacts import NEURON_TYPES, TYPE_COLUMNS, TYPES
from neuron_atlas.tasks.classify.rule import Rule
from neuron_atlas.tasks.settings import AtLeastOne

Threshold = Annotated[float, Interval(ge=0, lt=10)]
_CHUNK_ROWS = 2**15


@dataclass(frozen=True)
class PaperRule(Rule):
    """The paper's rule, with thresholds on activations normalized to 0-10.

    An exemplar is visual if at least `n_visual` visual tokens exceed `t_visual`, text if at least
    `n_text` text tokens exceed `t_text`, multi-modal if both, and unknown if neither.
    include_template: whether the maximum that maps to 10 includes template tokens. top_n: number
    of exemplars that vote, strongest first; None for all captured ones. One capture serves any
    smaller top_n.
    """

    n_visual: AtLeastOne = 4
    t_visual: Threshold = 2.0
    n_text: AtLeastOne = 2
    t_text: Threshold = 3.0
    include_template: bool = False
    top_n: AtLeastOne | None = None

    def types(self, traces: pa.Table, moments: pa.Table) -> pa.Table:
        """Return the `types` rows of the neurons in `moments`, from their `traces`.

        A neuron that is never positive has scale 0, and all its exemplars are unknown. So is a
        neuron without exemplars.
        """
        scale = _scale(moments, self.include_template)
        if self.top_n is not None:
            traces = traces.filter(pc.less(traces["rank"], self.top_n))
        row_neuron = _positions(traces, moments)
        row_scale = scale[row_neuron]
        is_visual = _count_above(traces["visual"], row_scale, self.t_visual) >= self.n_visual
        is_text = _count_above(traces["text"], row_scale, self.t_text) >= self.n_text
        # In the order of TYPES: visual, text, multi-modal, unknown.
        kind = np.select([is_visual & is_text, is_visual, is_text], [2, 0, 1], default=3)
        votes = np.zeros((len(moments), len(TYPES)), dtype=np.int64)
        np.add.at(votes, (row_neuron, kind), 1)
        n_votes = votes.sum(1)
        shares = votes / np.maximum(n_votes, 1)[:, None]
        shares[n_votes == 0, TYPES.index("unknown")] = 1.0
        columns = {
            "layer": moments["layer"],
            "neuron": moments["neuron"],
            **dict(zip(TYPE_COLUMNS.values(), shares.T, strict=True)),
            "type": pa.array(np.asarray(TYPES)[shares.argmax(1)]),
            "n_exemplars": n_votes.astype(np.int16),
            "scale": scale,
        }
        return pa.table(columns).cast(NEURON_TYPES.schema)


def _scale(moments: pa.Table, include_template: bool) -> np.ndarray:
    """Return the activation that maps to 10: float32 [neurons], 0 if never positive."""
    roles = ("visual", "text", "template") if include_template else ("visual", "text")
    maxima = np.stack([moments[f"max_{role}"].to_numpy() for role in roles])
    return np.nan_to_num(np.fmax.reduce(maxima), nan=0.0).clip(min=0.0).astype(np.float32)


def _positions(traces: pa.Table, moments: pa.Table) -> np.ndarray:
    """Return, for every trace, the row of `moments` with its neuron."""

    def keys(table: pa.Table) -> np.ndarray:
        return table["layer"].to_numpy().astype(np.int64) << 32 | table["neuron"].to_numpy()

    neuron_keys = keys(moments)
    order = neuron_keys.argsort()
    return order[np.searchsorted(neuron_keys, keys(traces), sorter=order)]


def _count_above(column: pa.ChunkedArray, scale: np.ndarray, threshold: float) -> np.ndarray:
    """Count each row's activations that exceed `threshold` when `scale` maps to 10."""
    limit = np.where(scale > 0, scale * (threshold / 10), np.inf).astype(np.float32)
    counts = np.zeros(len(column), dtype=np.int64)
    # In chunks, because a layer's activations take gigabytes in float32.
    for first in range(0, len(column), _CHUNK_ROWS):
        rows = column.slice(first, _CHUNK_ROWS).combine_chunks()
        chunk = slice(first, first + len(rows))
        offsets = rows.offsets.to_numpy()
        values = rows.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
        above = values.astype(np.float32) > np.repeat(limit[chunk], np.diff(offsets))
        running = np.concatenate([[0], np.cumsum(above)])
        counts[chunk] = running[offsets[1:] - offsets[0]] - running[offsets[:-1] - offsets[0]]
    return counts
