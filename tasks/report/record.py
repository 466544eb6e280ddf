"""Read the record of a neuron that the page, the site and the notebook show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    NEURON_TYPES,
    SCORES,
    TRACES,
    TYPE_COLUMNS,
    TableSpec,
)
from neuron_atlas.tasks.artifacts.regions import activation_map, count_tokens
from neuron_atlas.tasks.evidence.evidence import (
    ActivationRecord,
    activation_records,
    normalize_to_ten,
)
from neuron_atlas.tasks.report.inputs import LayerFiles, by_neuron, read_neurons
from neuron_atlas.tasks.report.pictures import open_scaled_view
from neuron_atlas.tasks.samples.catalog import Catalog, Sample

_EXPLANATION_COLUMNS = ("text", "evidence_for", "evidence_against", "status", "reason", "model")


@dataclass(frozen=True, repr=False)
class Exemplar(ActivationRecord):
    """One of a neuron's top-activating samples. Rank 0 is the strongest.

    visual: float32 [n_visual], activation at each visual token. text: float32 [n_text], activation
    at each token of `tokens`, which together form the text. scale: the neuron's highest activation
    over the dataset, which maps to 10.
    """

    rank: int
    scale: float
    catalog: Catalog

    @property
    def peak(self) -> float:
        """Highest activation over all tokens of the sample."""
        return float(max(self.visual.max(initial=-np.inf), self.text.max(initial=-np.inf)))

    @property
    def sample(self) -> Sample | None:
        """The sample; None if it is no longer listed as usable."""
        return self.catalog.samples.get(self.sample_id)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text, split at its token boundaries."""
        return self.sample.tokens if self.sample else ()

    @cached_property
    def image(self) -> Image.Image | None:
        """The image as the subject saw it, in RGB; None if it cannot be opened."""
        return open_scaled_view(self.catalog, self.sample_id)[0]

    @cached_property
    def heat(self) -> np.ndarray | None:
        """Heat map over `image`: float32 [rows, columns], 0 to 10; None without an image."""
        return sample_heat_map(self, self.scale, self.catalog)

    def __repr__(self) -> str:
        return f"<Exemplar {self.rank}: sample {self.sample_id}, peak {self.peak:.3g}>"


@dataclass(frozen=True)
class ScoredExplanation:
    """One explainer's row of `explanations` with its rows of `scores`."""

    explanation: Mapping[str, Any]
    scores: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class TypedNeuron:
    """A neuron with its row of `types`."""

    row: Mapping[str, Any]

    @property
    def layer(self) -> int:
        """Layer of the neuron."""
        return self.row["layer"]

    @property
    def neuron(self) -> int:
        """Index of the neuron in its layer."""
        return self.row["neuron"]

    @property
    def type(self) -> str:
        """Type: visual, text, multi-modal or unknown."""
        return self.row["type"]

    @property
    def shares(self) -> dict[str, float]:
        """Share of its exemplars that have each type."""
        return {name: self.row[column] or 0.0 for name, column in TYPE_COLUMNS.items()}

    @property
    def scale(self) -> float:
        """Highest activation over the dataset, which maps to 10."""
        return self.row["scale"] or 0.0


@dataclass(frozen=True)
class NeuronRecord(TypedNeuron):
    """One neuron with its explanations and exemplars.

    exemplars: strongest first. statistics: its rows of further tables, by the name of the table.
    """

    explanations: tuple[ScoredExplanation, ...]
    exemplars: tuple[Exemplar, ...]
    statistics: Mapping[str, Mapping[str, Any]]


def read_records(
    files: LayerFiles,
    neurons: Collection[int],
    open_samples: Callable[[Collection[int]], Catalog],
    exemplars: int | None = None,
    of_others: int | None = None,
    statistics: Collection[TableSpec] = (),
) -> dict[int, NeuronRecord]:
    """Read some neurons of a layer. Returns records by the neuron's index.

    open_samples: opens the exemplars' samples by id. exemplars: maximum per neuron; None for all.
    of_others: maximum for a neuron that was not explained; None for `exemplars`. statistics:
    further tables to read.
    """
    specs = (NEURON_TYPES, SCORES, *statistics)
    tables = {spec.name: read_neurons(files, spec, neurons) for spec in specs}
    columns = ["neuron", "explainer", "confidence", *_EXPLANATION_COLUMNS]
    tables["explanations"] = read_neurons(files, EXPLANATIONS, neurons, columns)
    traces = read_neurons(files, TRACES, neurons)
    if exemplars is not None:
        explained = pc.is_in(traces["neuron"], tables["explanations"]["neuron"].combine_chunks())
        others = exemplars if of_others is None else of_others
        traces = traces.filter(pc.less(traces["rank"], pc.if_else(explained, exemplars, others)))
    tables["traces"] = traces
    catalog = open_samples(set(traces["sample_id"].to_pylist()))
    return gather_records(tables, catalog)


def gather_records(tables: Mapping[str, pa.Table], catalog: Catalog) -> dict[int, NeuronRecord]:
    """Combine the rows of one layer's neurons into records, by the neuron's index.

    tables: `types`, `explanations`, `scores`, `traces` and tables of statistics, by name.
    """
    rows = {name: by_neuron(table) for name, table in tables.items() if name != "traces"}
    types, explained, scored = (rows.pop(name) for name in ("types", "explanations", "scores"))
    scales = {neuron: row["scale"] or 0.0 for neuron, (row,) in types.items()}
    exemplars = _exemplars(tables["traces"], scales, catalog)
    return {
        neuron: NeuronRecord(
            row,
            _pair_up(explained.get(neuron, []), scored.get(neuron, [])),
            tuple(sorted(exemplars.get(neuron, []), key=lambda one: one.rank)),
            {name: found[neuron][0] for name, found in rows.items() if neuron in found},
        )
        for neuron, (row,) in sorted(types.items())
    }


def sample_heat_map(trace: ActivationRecord, scale: float, catalog: Catalog) -> np.ndarray | None:
    """Return the heat map of a sample: float32 [rows, columns], 0 to 10, where `scale` maps to 10.

    Returns None if the sample has no image, or a different one than when it was captured.
    """
    sample = catalog.samples.get(trace.sample_id)
    if sample is None or not len(trace.visual) or count_tokens(sample.regions) != len(trace.visual):
        return None
    return activation_map(sample.view, normalize_to_ten(trace.visual, scale))


def _exemplars(
    traces: pa.Table, scales: Mapping[int, float], catalog: Catalog
) -> dict[int, list[Exemplar]]:
    found: dict[int, list[Exemplar]] = {}
    columns = (traces[name].to_pylist() for name in ("neuron", "rank"))
    for neuron, rank, trace in zip(*columns, activation_records(traces), strict=True):
        one = Exemplar(**vars(trace), rank=rank, scale=scales.get(neuron, 0.0), catalog=catalog)
        found.setdefault(neuron, []).append(one)
    return found


def _pair_up(
    explanations: list[dict[str, Any]], scores: list[dict[str, Any]]
) -> tuple[ScoredExplanation, ...]:
    explained = {row["explainer"]: row for row in explanations}
    missing = dict.fromkeys(_EXPLANATION_COLUMNS, "") | {"status": "missing", "confidence": None}
    return tuple(
        ScoredExplanation(
            explained.get(name, missing | {"explainer": name}),
            tuple(row for row in scores if row["explainer"] == name),
        )
        for name in dict.fromkeys(row["explainer"] for row in (*explanations, *scores))
    )
