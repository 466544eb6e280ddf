"""What an explainer and a scorer may look at: disjoint samples of one neuron's traces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import RANDOM_TRACES, TRACES, TableSpec, list_rows

Purpose = Literal["explainer", "calibration", "scorer"]
Draw = Literal["exemplar", "random"]

_EXEMPLAR_PURPOSES: tuple[Purpose, ...] = ("explainer", "scorer", "explainer", "calibration")
_RANDOM_PURPOSES: tuple[Purpose, ...] = ("scorer", "explainer", "scorer", "calibration")


@dataclass(frozen=True)
class Excitation:
    """A neuron's activations on one sample, in activation units.

    visual: float32 [n_visual], in the order of the sample's regions. text: float32 [n_text].
    """

    sample_id: int
    visual: np.ndarray
    text: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """One neuron's exemplars (strongest first) and random samples, for one purpose.

    scale: the neuron's maximum over the dataset, the activation that counts as 10.
    """

    layer: int
    neuron: int
    type: str
    scale: float
    exemplars: tuple[Excitation, ...]
    random: tuple[Excitation, ...]

    @property
    def sample_ids(self) -> list[int]:
        """Every sample that this evidence shows."""
        return [seen.sample_id for seen in (*self.exemplars, *self.random)]


def to_ten(activations: np.ndarray, scale: float) -> np.ndarray:
    """Normalise as the paper does: negative values to 0, the neuron's maximum to 10."""
    if scale <= 0:
        return np.zeros_like(activations, dtype=np.float32)
    return np.clip(activations, 0, None).astype(np.float32) * np.float32(10 / scale)


def one_to_one(evidence: Evidence) -> list[tuple[Draw, Excitation]]:
    """Equally many exemplars and random samples: what the evidence has of the scarcer kind.

    Of the other kind as many are taken, spread evenly over it, so that of exemplars the strong and
    the weak remain.
    """
    count = min(len(evidence.exemplars), len(evidence.random))
    drawn: list[tuple[Draw, Excitation]] = []
    drawn += [("exemplar", seen) for seen in _spread(evidence.exemplars, count)]
    drawn += [("random", seen) for seen in _spread(evidence.random, count)]
    return drawn


def exemplar_purpose(rank: int) -> Purpose:
    """What the exemplar of this rank is for.

    Purposes interleave down the ranking, so explainer and scorer see equally strong samples.
    """
    return _EXEMPLAR_PURPOSES[rank % len(_EXEMPLAR_PURPOSES)]


def read_traces(path: Path, spec: TableSpec, neurons: Sequence[int]) -> pa.Table:
    """The traces (or random traces) of some `neurons` of the layer that `path` holds."""
    wanted = [int(neuron) for neuron in neurons]
    if not wanted:
        return spec.schema.empty_table()
    # The range lets the reader pass over whole row groups, which it cannot do for a set.
    filters = [
        ("neuron", ">=", min(wanted)),
        ("neuron", "<=", max(wanted)),
        ("neuron", "in", wanted),
    ]
    return pq.read_table(path, filters=filters).cast(spec.schema)


def load_evidence(
    types: pa.Table, traces: Path, random_traces: Path, purpose: Purpose
) -> list[Evidence]:
    """The evidence of the neurons in `types` (rows of one layer), in their order.

    A sample has one purpose for a neuron: that of its rank if it is an exemplar, whatever else
    it was drawn for. So the evidence of two purposes never shares a sample.
    """
    neurons = types["neuron"].to_pylist()
    ranked = _by_neuron(
        read_traces(traces, TRACES, neurons).sort_by(
            [("neuron", "ascending"), ("rank", "ascending")]
        )
    )
    drawn = _by_neuron(read_traces(random_traces, RANDOM_TRACES, neurons))
    evidence = []
    for row in types.to_pylist():
        exemplars = ranked.get(row["neuron"], [])
        used = {seen.sample_id for seen in exemplars}
        random = [seen for seen in drawn.get(row["neuron"], []) if seen.sample_id not in used]
        evidence.append(
            Evidence(
                layer=row["layer"],
                neuron=row["neuron"],
                type=row["type"],
                scale=row["scale"],
                exemplars=tuple(_for(purpose, exemplars, _EXEMPLAR_PURPOSES)),
                random=tuple(_for(purpose, random, _RANDOM_PURPOSES)),
            )
        )
    return evidence


def _spread(seen: Sequence[Excitation], count: int) -> list[Excitation]:
    return [seen[(2 * place + 1) * len(seen) // (2 * count)] for place in range(count)]


def _for(
    purpose: Purpose, seen: Iterable[Excitation], purposes: Sequence[Purpose]
) -> Iterator[Excitation]:
    return (
        excitation
        for place, excitation in enumerate(seen)
        if purposes[place % len(purposes)] == purpose
    )


def _by_neuron(table: pa.Table) -> dict[int, list[Excitation]]:
    neurons = table["neuron"].to_pylist()
    sample_ids = table["sample_id"].to_pylist()
    visual, text = (
        [row.astype(np.float32) for row in list_rows(table[role])] for role in ("visual", "text")
    )
    rows = zip(neurons, map(Excitation, sample_ids, visual, text), strict=True)
    return {
        neuron: [excitation for _, excitation in group]
        for neuron, group in groupby(rows, key=lambda row: row[0])
    }
