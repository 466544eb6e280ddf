"""One neuron of an atlas: its type, what was said of it, how far that holds, what excites it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from PIL import Image

from neuron_atlas.tasks.artifacts import EXPLANATIONS, SCORES, TRACES, TYPE_COLUMNS, TableSpec
from neuron_atlas.tasks.artifacts.regions import heat_over
from neuron_atlas.tasks.evidence.evidence import read_traces, to_ten
from neuron_atlas.tasks.samples.catalog import Catalog, Sample, open_catalog
from neuron_atlas.tasks.samples.source import BadSample, SourceError

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas.atlas import Atlas


class NoSuchNeuron(IndexError):
    """A layer or an index that the run did not capture; the message says which it did."""


@dataclass(frozen=True, repr=False)
class Exemplar:
    """One of the samples that excite a neuron most; rank 0 is the strongest.

    visual: float32 [n_visual], activation at each visual token. text: float32 [n_text], at each
    token of `tokens`, which joined are what the subject said or was given.
    """

    rank: int
    sample_id: int
    visual: np.ndarray
    text: np.ndarray
    trace: Mapping[str, Any]
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
        if self.sample is None or not self.sample.regions or self.catalog.source is None:
            return None
        try:
            return self.catalog.open_view(self.sample_id)
        except (BadSample, SourceError, OSError):
            return None

    @cached_property
    def heat(self) -> np.ndarray | None:
        """Activations of 0 to 10 over the whole of `image`, float32 [rows, columns]."""
        if self.sample is None or not len(self.visual):
            return None
        return heat_over(self.sample.view, to_ten(self.visual, self.scale))

    def __repr__(self) -> str:
        return f"<Exemplar {self.rank}: sample {self.sample_id}, peak {self.peak:.3g}>"


@dataclass(frozen=True, repr=False)
class Neuron:
    """One neuron; row: of the table `types`. Its tables are read when they are asked for."""

    atlas: Atlas
    layer: int
    index: int
    row: Mapping[str, Any] = field(repr=False)

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

    @cached_property
    def explanations(self) -> pl.DataFrame:
        """Its rows of `explanations`, one of each explainer; none where it was not chosen."""
        return self._rows(EXPLANATIONS)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """Its rows of `scores`, by explainer, simulator and tokens."""
        return self._rows(SCORES)

    @cached_property
    def exemplars(self) -> list[Exemplar]:
        """The samples that excite it most, strongest first."""
        path = of_layer(self.atlas.run.paths("traces"), self.layer)[0]
        rows = read_traces(path, TRACES, [self.index]).sort_by("rank").to_pylist()
        run = self.atlas.run
        catalog = open_catalog(
            run.paths("samples"),
            run.paths("descriptions"),
            sample_ids={row["sample_id"] for row in rows},
            source=self.atlas.source,
        )
        return [
            Exemplar(
                rank=row["rank"],
                sample_id=row["sample_id"],
                visual=np.asarray(row["visual"], np.float32),
                text=np.asarray(row["text"], np.float32),
                trace=row,
                scale=self.scale,
                catalog=catalog,
            )
            for row in rows
        ]

    def __repr__(self) -> str:
        said = self.explanations.filter(pl.col("status") == "ok")["text"].to_list()
        words = f": {said[0]}" if said else ""
        return f"<Neuron {self.layer}:{self.index}, {self.type}{words}>"

    def _repr_html_(self) -> str:
        from neuron_atlas.tasks.atlas.picture import picture

        return picture(self)

    def _rows(self, spec: TableSpec) -> pl.DataFrame:
        return rows_of(self.atlas, spec, self.layer, self.index)


def read_neuron(atlas: Atlas, layer: int, index: int) -> Neuron:
    """Find a neuron's row of `types`. Raises NoSuchNeuron."""
    from neuron_atlas.tasks.atlas.atlas import scan

    types = scan(of_layer(atlas.run.paths("types"), layer))
    rows = types.filter(pl.col("layer") == layer, pl.col("neuron") == index).collect().to_dicts()
    if not rows:
        last = types.select(pl.col("neuron").max()).collect().item()
        raise NoSuchNeuron(f"neuron {index} of layer {layer}: it has the neurons 0 to {last}")
    return Neuron(atlas, layer, index, rows[0])


def rows_of(atlas: Atlas, spec: TableSpec, layer: int, index: int) -> pl.DataFrame:
    """The rows of one neuron; none where the run has no such table, or no file of the layer."""
    from neuron_atlas.tasks.atlas.atlas import empty, scan

    paths = of_layer(atlas.run.paths(spec.name), layer) if spec.name in atlas.tables else []
    frame = scan(paths) if paths else empty(spec)
    return frame.filter(pl.col("layer") == layer, pl.col("neuron") == index).collect()


def of_layer(paths: list[Path], layer: int) -> list[Path]:
    """The files of one layer, which their names tell."""
    return [path for path in paths if f"-layer-{layer:03d}" in path.name]
