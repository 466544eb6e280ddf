"""A finished run, opened to be read: its tables as lazy frames, and its neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow.dataset as pads
import pyarrow.fs as pafs
from upath import UPath

from neuron_atlas.tasks.artifacts.location import is_local, location
from neuron_atlas.tasks.atlas.neuron import Neuron, NoSuchNeuron, read_neuron
from neuron_atlas.tasks.atlas.runs import Run, find_run, list_runs
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.settings import recorded_module

_NO_TABLES = {"report", "site"}
_SOURCES = "tasks.samples."


@dataclass(frozen=True)
class Atlas:
    """One finished run. Its tables are attributes, each a polars LazyFrame: `atlas.types`,
    `atlas.explanations`, `atlas.scores`, `atlas.samples` ...; `atlas.tables` names them all.

    A frame reads what is asked of it, and no more: filter and select before `collect`.
    source: where exemplars' images are opened; None where the dataset cannot be opened again.
    """

    run: Run
    source: Source | None

    @staticmethod
    def open(uri: str | Path, run: str | None = None, source: Source | None = None) -> Atlas:
        """Open an output folder, or a prefix on an object store (s3://bucket/prefix).

        run: the name of a run of `Atlas.runs`, or how it begins; None for the last. source: to
        open images with, where the dataset has moved; None for that of the run. Raises NoSuchRun.
        """
        found = find_run(location(str(uri)), run)
        return Atlas(found, source or _source(found))

    @staticmethod
    def runs(uri: str | Path) -> list[Run]:
        """All runs that finished there, first to last. Raises NoSuchRun."""
        return list_runs(location(str(uri)))

    @property
    def tables(self) -> list[str]:
        """The names of the tables."""
        return sorted(set(self.run.artifacts) - _NO_TABLES)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layers that were captured."""
        told = self.run.of_stage("capture").get("about", {}).get("layers")
        if told is None:
            told = self.types.select(pl.col("layer").unique().sort()).collect()["layer"]
        return tuple(told)

    def table(self, name: str) -> pl.LazyFrame:
        """A table by its name. Raises AttributeError where the run has none."""
        if name not in self.tables:
            raise AttributeError(f"this run has no table {name!r}; it has {', '.join(self.tables)}")
        return _scan(self.run.paths(name))

    def neuron(self, layer: int, index: int) -> Neuron:
        """One neuron, with what the atlas knows of it. Raises NoSuchNeuron."""
        if layer not in self.layers:
            known = ", ".join(map(str, self.layers))
            raise NoSuchNeuron(f"layer {layer}: this run captured the layers {known}")
        return read_neuron(self, layer, index)

    def __getattr__(self, name: str) -> pl.LazyFrame:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.table(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.tables]

    def __repr__(self) -> str:
        return f"<Atlas {self.run.out}, run {self.run}>"


def _scan(paths: Sequence[Path]) -> pl.LazyFrame:
    """The rows of some files of one table, read when they are asked for."""
    if all(is_local(path) for path in paths):
        return pl.scan_parquet(list(paths), missing_columns="raise")
    remote = [cast(UPath, path) for path in paths]
    files = pafs.PyFileSystem(pafs.FSSpecHandler(remote[0].fs))
    return pl.scan_pyarrow_dataset(pads.dataset([path.path for path in remote], filesystem=files))


def _source(run: Run) -> Source | None:
    """The run's own dataset, if it is of a class of this program and can be opened now."""
    told = dict(run.parameter("samples", "source"))
    module, _, name = str(told.pop("class", "")).rpartition(".")
    # A manifest is data: it names a dataset, and no other code to be run.
    if not f"{module}.".startswith(_SOURCES):
        return None
    kind: Any = getattr(import_module(recorded_module(module)), name, None)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return None
    known = {spec.name for spec in fields(kind)}
    return cast(Any, kind)(**{key: value for key, value in told.items() if key in known})
