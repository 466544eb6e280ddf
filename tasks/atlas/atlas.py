"""Read a finished run: its tables as lazy frames, and its neurons."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import polars as pl
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from PIL import Image
from upath import UPath

from neuron_atlas.tasks import artifacts
from neuron_atlas.tasks.artifacts import ExpertLayout, old_table_message
from neuron_atlas.tasks.artifacts.location import is_local, parse_location
from neuron_atlas.tasks.atlas.neuron import Neuron, NeuronNotFoundError, read_neuron
from neuron_atlas.tasks.atlas.runs import Run, find_run, list_runs
from neuron_atlas.tasks.report.inputs import files_of_layer, read_experts
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import recorded_module

if TYPE_CHECKING:
    from neuron_atlas.tasks.probe.result import Probe

_NO_TABLES = {"report", "site"}
_SOURCES = "tasks.samples."
_SPECS = [spec for spec in vars(artifacts).values() if isinstance(spec, artifacts.TableSpec)]
_COLUMNS = {spec.name: spec.schema.names for spec in [*_SPECS, artifacts.exemplars_spec(1)]}


@dataclass(frozen=True)
class Atlas:
    """One finished run. Its tables are attributes, each a polars LazyFrame: `atlas.types`,
    `atlas.explanations`, `atlas.scores`, `atlas.samples` ...; `atlas.tables` names them all.

    A frame reads only the rows and columns that it needs: filter and select before `collect`.
    source: dataset that exemplars' images are read from; None if it cannot be opened again.
    """

    run: Run
    source: Source | None

    @staticmethod
    def open(uri: str | Path, run: str | None = None, source: Source | None = None) -> Atlas:
        """Open an output folder, or a prefix on an object store (s3://bucket/prefix).

        run: name of a run in `Atlas.runs`, or a prefix of it; None for the last run. source:
        dataset to read images from, if it has moved; None for the run's own. Raises
        RunNotFoundError.
        """
        found = find_run(parse_location(str(uri)), run)
        return Atlas(found, source or _source(found))

    @staticmethod
    def runs(uri: str | Path) -> list[Run]:
        """Return all finished runs of an output folder, first to last. Raises RunNotFoundError."""
        return list_runs(parse_location(str(uri)))

    @property
    def tables(self) -> list[str]:
        """Names of the tables."""
        return sorted(set(self.run.artifacts) - _NO_TABLES)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Layers of this run. Other runs of the folder may have others: see `Atlas.runs`."""
        layers = self.run.layers
        return layers or tuple(
            self.types.select(pl.col("layer").unique().sort()).collect()["layer"]
        )

    def table(self, name: str) -> pl.LazyFrame:
        """Return a table by its name. Raises AttributeError if the run has no such table.

        Warns if another version of this program wrote the table, with other columns.
        """
        if name not in self.tables:
            raise AttributeError(f"this run has no table {name!r}; it has {', '.join(self.tables)}")
        frame = _scan(self.run.paths(name))
        columns = frame.collect_schema().names()
        if missing := [column for column in _COLUMNS.get(name, ()) if column not in columns]:
            warnings.warn(f"{name}: {old_table_message(missing)}", stacklevel=2)
        return frame

    def neuron(self, layer: int, index: int) -> Neuron:
        """Return one neuron with all that the run stores about it. Raises NeuronNotFoundError."""
        if layer not in self.layers:
            known = ", ".join(map(str, self.layers))
            s = "" if len(self.layers) == 1 else "s"
            raise NeuronNotFoundError(
                f"layer {layer}: this run captured the layer{s} {known}{self._elsewhere(layer)}"
            )
        return read_neuron(self, layer, index)

    def expert_layout(self, layer: int) -> ExpertLayout | None:
        """Return how the neurons of a layer are numbered by expert: `layout.neuron(expert, index)`
        and `layout.expert(neuron)`; None for a layer without experts."""
        return read_experts(
            files_of_layer(layer, {name: self.run.paths(name) for name in self.tables})
        )

    def probe(
        self,
        image: str | Path | Image.Image | None = None,
        text: str | None = None,
        *,
        without: Sequence[tuple[int, int]] = (),
        clamp: Mapping[tuple[int, int], float] | None = None,
        count: int = 20,
        max_new_tokens: int | None = None,
        model: str | None = None,
        device: str | None = None,
    ) -> Probe:
        """Run the subject on an image, and return the neurons that fire most against their own
        distribution over the run's dataset.

        image: a file or a picture; None for a text alone. text: shown to the subject as its own
        answer; None lets it answer the run's question. without: neurons (layer, index) that are
        zeroed in a second answer. clamp: the value of each neuron (layer, index) that is clamped in
        the second answer: at every token its activation is at least a value above 0, and at most
        one of 0 or below. count: neurons to return. max_new_tokens: of each answer; None for the
        run's limit. model, device: see `open_run_subject`.

        Loads the subject, which stays loaded for the next probe. Raises ProbeError for input that
        cannot be used and for another subject than the run's, InterventionError for a neuron that
        does not exist or a value with which the output overflows, and SubjectError.
        """
        # Imported here, because it loads torch.
        from neuron_atlas.tasks.probe.probe import probe_atlas

        return probe_atlas(
            self,
            image,
            text,
            without=without,
            clamp=clamp,
            count=count,
            max_new_tokens=max_new_tokens,
            model=model,
            device=device,
        )

    def search(
        self,
        words: str | None = None,
        *,
        like: tuple[int, int] | None = None,
        image: str | Path | Image.Image | None = None,
        by: Literal["explanations", "texts", "tokens", "clip"] | None = None,
        role: str | None = None,
        count: int = 20,
        model: str | None = None,
        device: str | None = None,
    ) -> pl.DataFrame:
        """Find neurons by words, by a neuron that they are `like` (layer, index), or by an image.

        Words are matched with explanations, with the texts of every neuron's exemplars and, for a
        run with search.model, with every neuron's vectors by that CLIP model (`clip`); the rankings
        are joined. by: one of these alone, or `tokens`: the subject's embeddings of the words with
        those at each neuron's peaks in the text. like: cosine of the two vectors. role: visual or
        text, the vectors to compare; None for those of more exemplars, and for `clip` for both.
        image: highest cosine of one of its tokens, or of the whole image by CLIP, with each
        neuron's visual vector. model, device: of the subject (see `open_run_subject`), which
        `image` and `tokens` load, or of the CLIP model of a run that has one.

        Returns rows of layer, neuron, match (comparable only within one search), type and
        explanation, best first. Raises SearchError, NeuronNotFoundError, ProbeError, ModelError
        and SubjectError.
        """
        from neuron_atlas.tasks.search.find import search_atlas

        return search_atlas(
            self,
            words,
            like=like,
            image=image,
            by=by,
            role=role,
            count=count,
            model=model,
            device=device,
        )

    def clarity(self) -> pl.DataFrame:
        """Return how clear and how redundant neurons are, by layer and type, without any labels:
        see `clarity_by_type`. Raises AttributeError for a run without these tables."""
        from neuron_atlas.tasks.report.clarity import clarity_by_type

        return clarity_by_type(self.types, self.search_vectors, self.neighbors)

    def _elsewhere(self, layer: int) -> str:
        """Name the last other run of the folder that has a layer; empty if none has it."""
        runs = [run for run in list_runs(self.run.out) if layer in run.layers]
        if not runs:
            return ""
        return f'. The run {runs[-1].name} has it: Atlas.open(..., run="{runs[-1].name}")'

    def __getattr__(self, name: str) -> pl.LazyFrame:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.table(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.tables]

    def __repr__(self) -> str:
        return f"<Atlas {self.run.out}, run {self.run}>"


def _scan(paths: Sequence[Path]) -> pl.LazyFrame:
    """Return the rows of some files of one table as a lazy frame."""
    is_arrow = bool(paths) and paths[0].suffix == ".arrow"
    if all(is_local(path) for path in paths):
        if is_arrow:
            return pl.scan_ipc(list(paths))
        return pl.scan_parquet(list(paths), missing_columns="raise")
    remote = [cast(UPath, path) for path in paths]
    files = pafs.PyFileSystem(pafs.FSSpecHandler(remote[0].fs))
    kind = "ipc" if is_arrow else "parquet"
    names = [path.path for path in remote]
    return pl.scan_pyarrow_dataset(pads.dataset(names, filesystem=files, format=kind))


def _source(run: Run) -> Source | None:
    """Return the run's dataset; None if its class is not one of this program."""
    settings = dict(run.parameter("samples", "source"))
    module, _, name = str(settings.pop("class", "")).rpartition(".")
    # A manifest is data: it may name a dataset class, but no other code to run.
    if not f"{module}.".startswith(_SOURCES):
        return None
    kind: Any = getattr(import_module(recorded_module(module)), name, None)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return None
    known = {spec.name for spec in fields(kind)}
    return cast(Any, kind)(**{key: value for key, value in settings.items() if key in known})
