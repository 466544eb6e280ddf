"""One neuron of an atlas: its type, what was said of it, how far that holds, what excites it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import EXPLANATIONS, NEURON_TYPES, SCORES
from neuron_atlas.tasks.report.inputs import (
    LayerFiles,
    SampleFiles,
    by_neuron,
    files_of_layer,
    read_neurons,
    read_types,
)
from neuron_atlas.tasks.report.neuron_view import neuron_html
from neuron_atlas.tasks.report.record import Exemplar, NeuronRecord, TypedNeuron, read_records

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.atlas import Atlas

_SHOWN = 6
"""Exemplars that a notebook shows."""


class NoSuchNeuron(IndexError):
    """A layer or an index that the run did not capture; the message says which it did."""


@dataclass(frozen=True, repr=False)
class Neuron(TypedNeuron):
    """One neuron; files: of its layer. Its tables are read when they are asked for."""

    atlas: Atlas
    files: LayerFiles

    @property
    def index(self) -> int:
        """Its index in the layer."""
        return self.neuron

    @cached_property
    def explanations(self) -> pl.DataFrame:
        """Its rows of `explanations`, one of each explainer; none where it was not chosen."""
        return pl.DataFrame(read_neurons(self.files, EXPLANATIONS, [self.index]))

    @cached_property
    def scores(self) -> pl.DataFrame:
        """Its rows of `scores`, by explainer, simulator and tokens."""
        return pl.DataFrame(read_neurons(self.files, SCORES, [self.index]))

    @property
    def exemplars(self) -> list[Exemplar]:
        """The samples that excite it most, strongest first."""
        return list(self.record.exemplars)

    @cached_property
    def record(self) -> NeuronRecord:
        """All of that together, as the report shows it."""
        run = self.atlas.run
        samples = SampleFiles(
            tuple(run.paths("samples")), tuple(run.paths("descriptions")), self.atlas.source
        )
        return read_records(self.files, [self.index], samples.open)[self.index]

    def __repr__(self) -> str:
        said = self.explanations.filter(pl.col("status") == "ok")["text"].to_list()
        words = f": {said[0]}" if said else ""
        return f"<Neuron {self.layer}:{self.index}, {self.type}{words}>"

    def _repr_html_(self) -> str:
        return neuron_html(replace(self.record, exemplars=self.record.exemplars[:_SHOWN]))


def read_neuron(atlas: Atlas, layer: int, index: int) -> Neuron:
    """Find a neuron's row of `types`. Raises NoSuchNeuron."""
    files = files_of_layer(layer, {name: atlas.run.paths(name) for name in atlas.tables})
    found = by_neuron(read_neurons(files, NEURON_TYPES, [index]))
    if index not in found:
        last = pc.max(read_types(files)["neuron"])
        raise NoSuchNeuron(f"neuron {index} of layer {layer}: it has the neurons 0 to {last}")
    return Neuron(found[index][0], atlas, files)
