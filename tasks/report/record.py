"""One neuron as the page, the site and the notebook show it, read from the artifacts."""

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
from neuron_atlas.tasks.artifacts.regions import count_tokens, heat_over
from neuron_atlas.tasks.evidence.evidence import Excitation, excitations, to_ten
from neuron_atlas.tasks.report.inputs import LayerFiles, by_neuron, read_neurons
from neuron_atlas.tasks.report.pictures import open_view
from neuron_atlas.tasks.samples.catalog import Catalog, Sample

_SAID = ("text", "evidence_for", "evidence_against", "status", "reason", "model")


@dataclass(frozen=True, repr=False)
class Exemplar(Excitation):
    """One of the samples that excite a neuron most; rank 0 is the strongest.

    visual: float32 [n_visual], activation at each visual token. text: float32 [n_text], at each
    token of `tokens`, which joined are what the subject said or was given. scale: the neuron's
    highest activation over the dataset, which counts as 10.
    """

    rank: int
    scale: float
    catalog: Catalog

    @property
    def peak(self) -> float:
        """Its highest activation, over all tokens."""
        return float(max(self.visual.max(initial=-np.inf), self.text.max(initial=-np.inf)))

    @property
    def sample(self) -> Sample | None:
        """The sample; None where the dataset no longer lists it."""
        return self.catalog.samples.get(self.sample_id)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text cut at its token boundaries."""
        return self.sample.tokens if self.sample else ()

    @cached_property
    def image(self) -> Image.Image | None:
        """What the subject saw, RGB; None where the dataset is not at hand."""
        return open_view(self.catalog, self.sample_id)[0]

    @cached_property
    def heat(self) -> np.ndarray | None:
        """Activations of 0 to 10 over the whole of `image`, float32 [rows, columns]."""
        return heat_of(self, self.scale, self.catalog)

    def __repr__(self) -> str:
        return f"<Exemplar {self.rank}: sample {self.sample_id}, peak {self.peak:.3g}>"


@dataclass(frozen=True)
class Account:
    """What one explainer said, a row of `explanations`, and its rows of `scores`."""

    explanation: Mapping[str, Any]
    scores: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class TypedNeuron:
    """A neuron by its row of `types`."""

    row: Mapping[str, Any]

    @property
    def layer(self) -> int:
        """Its layer."""
        return self.row["layer"]

    @property
    def neuron(self) -> int:
        """Its index in the layer."""
        return self.row["neuron"]

    @property
    def type(self) -> str:
        """visual, text, multi-modal or unknown."""
        return self.row["type"]

    @property
    def shares(self) -> dict[str, float]:
        """Of its exemplars, the share of each type."""
        return {name: self.row[column] or 0.0 for name, column in TYPE_COLUMNS.items()}

    @property
    def scale(self) -> float:
        """Its highest activation over the dataset, which counts as 10."""
        return self.row["scale"] or 0.0


@dataclass(frozen=True)
class NeuronRecord(TypedNeuron):
    """One neuron; exemplars: strongest first; statistics: its rows of further tables, by the
    table's name."""

    accounts: tuple[Account, ...]
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
    """Read some neurons of a layer, by their index.

    open_samples: looks up the exemplars' samples. exemplars: at most so many of each neuron, and
    of_others: of one that was not explained; None for all, and for as many. statistics: further
    tables to read.
    """
    specs = (NEURON_TYPES, SCORES, *statistics)
    tables = {spec.name: read_neurons(files, spec, neurons) for spec in specs}
    columns = ["neuron", "explainer", "confidence", *_SAID]
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
    """Gather the neurons of one layer from their rows of `types`, `explanations`, `scores`,
    `traces` and tables of statistics, by the table's name."""
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


def heat_of(seen: Excitation, scale: float, catalog: Catalog) -> np.ndarray | None:
    """Activations of 0 to 10, `scale` being 10, over all that the subject saw of the sample:
    float32 [rows, columns].

    None without an image, or where the sample has another one than when it was captured.
    """
    sample = catalog.samples.get(seen.sample_id)
    if sample is None or not len(seen.visual) or count_tokens(sample.regions) != len(seen.visual):
        return None
    return heat_over(sample.view, to_ten(seen.visual, scale))


def _exemplars(
    traces: pa.Table, scales: Mapping[int, float], catalog: Catalog
) -> dict[int, list[Exemplar]]:
    found: dict[int, list[Exemplar]] = {}
    columns = (traces[name].to_pylist() for name in ("neuron", "rank"))
    for neuron, rank, seen in zip(*columns, excitations(traces), strict=True):
        one = Exemplar(**vars(seen), rank=rank, scale=scales.get(neuron, 0.0), catalog=catalog)
        found.setdefault(neuron, []).append(one)
    return found


def _pair_up(
    explanations: list[dict[str, Any]], scores: list[dict[str, Any]]
) -> tuple[Account, ...]:
    said = {row["explainer"]: row for row in explanations}
    unsaid = dict.fromkeys(_SAID, "") | {"status": "missing", "confidence": None}
    return tuple(
        Account(
            said.get(name, unsaid | {"explainer": name}),
            tuple(row for row in scores if row["explainer"] == name),
        )
        for name in dict.fromkeys(row["explainer"] for row in (*explanations, *scores))
    )
