"""What a stage is: its work items, what each of them needs, and what they leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.workflows.cluster.actor_pool import Holding
from neuron_atlas.workflows.models.calls import ModelUse
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.store import Manifest


@dataclass(frozen=True)
class Item:
    """One piece of work.

    key: names it, within its step, and its log file. size: the units that it counts for on the
    progress bar. files: what it leaves, relative to the stage's folder; the item is complete when
    all are there, and without any it is done in every run. inputs: the arguments of its work.
    level: items of a level begin when those of the level below are done.
    """

    key: str
    size: int
    files: tuple[str, ...]
    inputs: tuple[Any, ...] = ()
    level: int = 0


@dataclass(frozen=True)
class Worker:
    """What an item's work finds where it runs.

    folder: the stage's. paths: where the item's files belong. held: what its actor holds, None on
    a CPU. calls: the way to the model of the stage. count: call it with a number of units that are
    done, within a long item.
    """

    folder: Path
    paths: tuple[Path, ...] = ()
    held: Any = None
    calls: Calls = field(default_factory=Calls)
    count: Callable[[int], None] = lambda units: None


Work = Callable[..., Sequence[str] | None]
"""Does one item: work(worker, *item.inputs). Returns lines for the user, if any. A function of a
module, for it is sent to the nodes of the cluster. Doing an item twice changes nothing."""


@dataclass(frozen=True)
class Needs:
    """What the items of a step run on. holding: an actor; None is a CPU of any node. model: the
    model that they call; None if they call none."""

    holding: Holding | None = None
    model: ModelUse | None = None


@dataclass(frozen=True)
class Step:
    """Items of one kind, which are worked on in any order and on any node.

    name: shown on the bar and timed. unit: what sizes count. items: lists them, once the steps
    before are done; some may be complete. should_retry: whether a complete item is to be done
    again, for it holds a failure that may have passed. is_live: its calls never go through the
    batch API.
    """

    name: str
    unit: str
    items: Callable[[Context, Path], Sequence[Item]]
    work: Work
    needs: Callable[[Context], Needs] = lambda context: Needs()
    should_retry: Callable[[Item, Path], bool] = lambda item, folder: False
    is_live: bool = False


Files = Mapping[str, Sequence[str]]
"""The files of each artifact, relative to the stage's folder."""


@dataclass(frozen=True)
class Written:
    """What a stage left in its folder: see Manifest."""

    files: Files
    content: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


def tables_of(items: Sequence[Item]) -> dict[str, list[str]]:
    """Return the tables that items leave for later stages, by artifact.

    A table's file is named after its artifact, up to the first "-", and lies at the top of the
    stage's folder. What lies below, or is no Parquet file, is the stage's own.
    """
    files: dict[str, list[str]] = {}
    for item in items:
        for name in item.files:
            if name.endswith(".parquet") and "/" not in name:
                artifact = name.removesuffix(".parquet").split("-")[0]
                files.setdefault(artifact, []).append(name)
    return files


def _nothing(context: Context) -> None:
    pass


def _only_files(context: Context, folder: Path, files: Files) -> Written:
    return Written(files)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline, from artifacts to an artifact.

    name: of its folder. version: raised when its code computes something else. reads: the stages
    whose artifacts it reads. parameters: the settings that decide its content. steps: its work.
    finish: given the folder and the tables of all items (see tables_of), says what was written;
    raises RunFailed where that is not good enough. prepare: raises before any work begins what
    would stop the run later. check: raises RunFailed for a finished stage, also one of an earlier
    run, that the run must not go on with.
    select: of all that was ever written with a fingerprint, what this run asks for; None where some
    of it is missing. temporary: what is removed from the folder once the stage is complete.
    explainer: whose stage it is, where it runs for each of several explainers. is_dry_run: only say
    what its model calls would take.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    parameters: Callable[[Context], Mapping[str, Any]]
    steps: tuple[Step, ...]
    finish: Callable[[Context, Path, Files], Written] = _only_files
    prepare: Callable[[Context], None] = _nothing
    check: Callable[[Context], None] = _nothing
    select: Callable[[Context, Manifest], Manifest | None] = lambda context, manifest: manifest
    temporary: tuple[str, ...] = ()
    explainer: str = ""
    is_dry_run: bool = False

    @property
    def title(self) -> str:
        """What it is called at the terminal."""
        return f"{self.name} by {self.explainer}" if self.explainer else self.name

    @property
    def key(self) -> str:
        """Its key in Context.done."""
        return f"{self.name}/{self.explainer}" if self.explainer else self.name
