"""Read one neuron of an atlas: its type, explanations, scores and exemplars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.compute as pc

from neuron_atlas.tasks.artifacts import (
    EFFECTS,
    EXPLANATIONS,
    FAITHFULNESS,
    NEIGHBORS,
    NEURON_TYPES,
    OUTPUT_TOKENS,
    SCORE_AGGREGATES,
    SCORES,
    read_table,
)
from neuron_atlas.tasks.artifacts.grouped import SAYINGS
from neuron_atlas.tasks.report.inputs import (
    LayerFiles,
    SampleFiles,
    by_neuron,
    files_of_layer,
    part_names,
    read_neurons,
    read_types,
)
from neuron_atlas.tasks.report.neuron_view import neuron_html
from neuron_atlas.tasks.report.record import Exemplar, NeuronRecord, TypedNeuron, read_records
from neuron_atlas.tasks.report.verdict import false_discovery_level

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.atlas import Atlas

_EXEMPLARS_IN_NOTEBOOK = 6


class NeuronNotFoundError(IndexError):
    """The run did not capture this layer or index; the message names those it did capture."""


@dataclass(frozen=True, repr=False)
class Neuron(TypedNeuron):
    """One neuron. Its tables are read on first access. files: files of its layer."""

    atlas: Atlas
    files: LayerFiles

    @property
    def index(self) -> int:
        """Index of the neuron in its layer."""
        return self.neuron

    @cached_property
    def part(self) -> str:
        """Its expert and its index in it, in words; empty in a layer without experts."""
        return part_names(self.files)(self.index)

    @cached_property
    def explanations(self) -> pl.DataFrame:
        """Rows of `explanations`, one per explainer; empty if the neuron was not explained."""
        return pl.DataFrame(read_neurons(self.files, EXPLANATIONS, [self.index]))

    @cached_property
    def scores(self) -> pl.DataFrame:
        """Rows of `scores`, one per explainer, simulator and kind of tokens."""
        return pl.DataFrame(read_neurons(self.files, SCORES, [self.index]))

    @cached_property
    def effects(self) -> pl.DataFrame:
        """Row of `effects`; empty if the run measured none."""
        return pl.DataFrame(read_neurons(self.files, EFFECTS, [self.index]))

    @cached_property
    def output_tokens(self) -> pl.DataFrame:
        """Row of `output_tokens`; empty if the run has none."""
        return pl.DataFrame(read_neurons(self.files, OUTPUT_TOKENS, [self.index]))

    @cached_property
    def faithfulness(self) -> pl.DataFrame:
        """Rows of `faithfulness`, one per explainer; empty if the run measured none."""
        return pl.DataFrame(read_neurons(self.files, FAITHFULNESS, [self.index]))

    @cached_property
    def neighbors(self) -> pl.DataFrame:
        """Nearest neurons by the subject's embeddings at their peaks, nearest first, for image and
        text apart: role, layer, neuron, cosine. Empty for a run without these."""
        rows = pl.DataFrame(read_neurons(self.files, NEIGHBORS, [self.index]))
        columns = {"layers": "layer", "neurons": "neuron", "cosines": "cosine"}
        return rows.select("role", *columns).explode(list(columns)).rename(columns).drop_nulls()

    @property
    def exemplars(self) -> list[Exemplar]:
        """Top-activating samples, strongest first."""
        return list(self.record.exemplars)

    @cached_property
    def record(self) -> NeuronRecord:
        """Type, explanations, scores and exemplars together, as the report shows them."""
        run = self.atlas.run
        samples = SampleFiles(
            tuple(run.paths("samples")), tuple(run.paths("descriptions")), self.atlas.source
        )
        found = read_records(
            self.files,
            [self.index],
            samples.open,
            statistics=(SAYINGS,),
            level=level_of(self.atlas),
        )
        return found[self.index]

    def __repr__(self) -> str:
        texts = self.explanations.filter(pl.col("status") == "ok")["text"].to_list()
        explanation = f": {texts[0]}" if texts else ""
        part = f" ({self.part})" if self.part else ""
        return f"<Neuron {self.layer}:{self.index}{part}, {self.type}{explanation}>"

    def _repr_html_(self) -> str:
        return neuron_html(
            replace(self.record, exemplars=self.record.exemplars[:_EXEMPLARS_IN_NOTEBOOK])
        )


def read_neuron(atlas: Atlas, layer: int, index: int) -> Neuron:
    """Read a neuron's row of `types`. Raises NeuronNotFoundError."""
    files = files_of_layer(layer, {name: atlas.run.paths(name) for name in atlas.tables})
    found = by_neuron(read_neurons(files, NEURON_TYPES, [index]))
    if index not in found:
        last = pc.max(read_types(files)["neuron"])
        raise NeuronNotFoundError(
            f"neuron {index} of layer {layer}: it has the neurons 0 to {last}"
        )
    return Neuron(found[index][0], atlas, files)


def level_of(atlas: Atlas) -> float | None:
    """Return the run's false discovery rate, for verdicts; None if it has no scores."""
    name = SCORE_AGGREGATES.name
    paths = atlas.run.paths(name) if name in atlas.tables else []
    return false_discovery_level(read_table(paths, SCORE_AGGREGATES, ["max_q"]))
