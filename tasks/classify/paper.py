"""Type neurons by the paper's rule: a neuron has the type of most of its exemplars.

Xu et al., "Deciphering Functions of Neurons in Vision-Language Models", arXiv 2502.18485.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pyarrow as pa
from annotated_types import Interval

from neuron_atlas.tasks.artifacts import (
    NEURON_TYPES,
    NO_SAMPLE,
    TYPE_COLUMNS,
    TYPES,
    slot_values,
)
from neuron_atlas.tasks.classify.rule import Rule
from neuron_atlas.tasks.settings import AtLeastOne

Threshold = Annotated[float, Interval(ge=0, lt=10)]


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

    def activations_needed(self) -> Mapping[str, int]:
        """See Rule."""
        return {"n_visual": self.n_visual, "n_text": self.n_text}

    def types(self, exemplars: pa.Table, moments: pa.Table) -> pa.Table:
        """Return the `types` rows of the neurons in `moments`, from their `exemplars`.

        A neuron that is never positive has scale 0, and all its exemplars are unknown. So is a
        neuron without exemplars. Raises ValueError if too few activations are stored.
        """
        scale = _scale(moments, self.include_template)
        columns_read = ["sample_id", "peak", "visual_top", "text_top"]
        exemplars = exemplars.select(columns_read).take(pa.array(_rows(exemplars, moments)))
        is_visual = _reaches(exemplars, "visual", self.n_visual, _limit(scale, self.t_visual))
        is_text = _reaches(exemplars, "text", self.n_text, _limit(scale, self.t_text))
        # In the order of TYPES: visual, text, multi-modal, unknown.
        kind = np.select([is_visual & is_text, is_visual, is_text], [2, 0, 1], default=3)
        kind[slot_values(exemplars, "sample_id") == NO_SAMPLE] = -1
        kind = kind[:, : self.top_n]
        votes = np.stack([(kind == index).sum(1) for index in range(len(TYPES))], 1)
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


def _limit(scale: np.ndarray, threshold: float) -> np.ndarray:
    """Return the activation that is `threshold` when `scale` maps to 10: float32 [neurons]."""
    return np.where(scale > 0, scale * (threshold / 10), np.inf).astype(np.float32)


def _rows(exemplars: pa.Table, moments: pa.Table) -> np.ndarray:
    """Return, for every neuron of `moments`, its row of `exemplars`."""

    def keys(table: pa.Table) -> np.ndarray:
        return table["layer"].to_numpy().astype(np.int64) << 32 | table["neuron"].to_numpy()

    exemplar_keys = keys(exemplars)
    order = exemplar_keys.argsort()
    return order[np.searchsorted(exemplar_keys, keys(moments), sorter=order)]


def _reaches(exemplars: pa.Table, role: str, count: int, limit: np.ndarray) -> np.ndarray:
    """Return whether at least `count` activations of each exemplar exceed its neuron's `limit`:
    bool [neurons, top_n].

    Reads only the count-th highest activation, so the answer is the same as from all of them.
    """
    top = slot_values(exemplars, f"{role}_top")
    if top.shape[2] < count and len(top):
        raise ValueError(
            f"classify.n_{role} ({count}) exceeds the {top.shape[2]} activations that "
            "capture.top_activations stores"
        )
    return top[:, :, count - 1] > limit[:, None]  # False for the NaN of a missing token.
