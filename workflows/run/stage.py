"""Definition of a stage: its steps, their work items, needs and output files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import artifact_of
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.workflows.cluster.actor_pool import ActorResource
from neuron_atlas.workflows.models.calls import ModelUse
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.store import Manifest


@dataclass(frozen=True)
class Item:
    """One piece of work.

    key: its name within its step, and of its log file. size: its units on the progress bar. files:
    its output, relative to the stage's folder. The item is complete when all of them exist; an item
    without files runs every time. inputs: the arguments of its work. level: the items of a level
    start when all items of lower levels are done.
    """

    key: str
    size: int
    files: tuple[str, ...]
    inputs: tuple[Any, ...] = ()
    level: int = 0


@dataclass(frozen=True)
class Worker:
    """The context in which an item's work runs.

    folder: the stage's. paths: paths of the item's output files. loaded: the object that its actor
    holds, None on a CPU. calls: how to call the stage's model. count: reports finished units, for
    long items.
    """

    folder: Path
    paths: tuple[Path, ...] = ()
    loaded: Any = None
    calls: CallOptions = field(default_factory=CallOptions)
    count: Callable[[int], None] = lambda units: None


Work = Callable[..., Sequence[str] | None]
"""Does one item: work(worker, *item.inputs). Returns lines for the user, if any. It must be
picklable, since it is sent to the nodes. Doing an item twice changes nothing."""


@dataclass(frozen=True)
class Needs:
    """Needs of the items of a step. resource: what the actors hold; None is a CPU of any node.
    model: the model that they call; None if they call none."""

    resource: ActorResource | None = None
    model: ModelUse | None = None


@dataclass(frozen=True)
class Step:
    """Items of one kind, processed in any order within a level and on any node.

    name: shown on the bar, and the key of its time. unit: the unit of item sizes. items: lists the
    items, after the earlier steps are done; some may be complete. work: does one item. needs: what
    the items run on. should_retry: whether to redo a complete item, because of a transient failure.
    is_live: its calls never use the batch API.
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
class StageOutput:
    """Files that a stage wrote to its folder; see Manifest."""

    files: Files
    content: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


def reads_of_samples(*, uses_clusters: bool) -> tuple[str, ...]:
    """Return the stages that a stage reads to open samples.

    uses_clusters: whether its explainer names image clusters. No other explainer depends on them.
    """
    return ("samples", "describe", *(("image_clusters",) if uses_clusters else ()))


def tables_of(items: Sequence[Item]) -> dict[str, list[str]]:
    """Return the tables that items write for later stages, by artifact.

    These are the tables at the top of the stage's folder; all other files are internal to the
    stage. The file name up to the first "-" is the artifact.
    """
    files: dict[str, list[str]] = {}
    for item in items:
        for name in item.files:
            artifact = artifact_of(name)
            if artifact is not None and "/" not in name:
                files.setdefault(artifact, []).append(name)
    return files


def _nothing(context: Context) -> None:
    pass


def _only_files(context: Context, folder: Path, files: Files) -> StageOutput:
    return StageOutput(files)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline, from artifacts to an artifact.

    name: also of its folder. version: raised when a change of the code changes its results. reads:
    the stages whose artifacts it reads. parameters: the settings that determine its content. steps:
    its work. finish: given the folder and the tables of all items (see tables_of), returns what was
    written; raises RunError if the results are not good enough. prepare: checks before any work
    starts; raises errors that would otherwise stop the run later. check: raises RunError if the
    run must not continue with this finished stage, which may be of an earlier run. select: returns
    the part of a manifest that this run needs; None if some of it is missing. temporary: folders to
    remove once the stage is complete. explainer: its explainer, if it runs once for each explainer.
    is_dry_run: only estimate its model calls.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    parameters: Callable[[Context], Mapping[str, Any]]
    steps: tuple[Step, ...]
    finish: Callable[[Context, Path, Files], StageOutput] = _only_files
    prepare: Callable[[Context], None] = _nothing
    check: Callable[[Context], None] = _nothing
    select: Callable[[Context, Manifest], Manifest | None] = lambda context, manifest: manifest
    temporary: tuple[str, ...] = ()
    explainer: str = ""
    is_dry_run: bool = False

    @property
    def title(self) -> str:
        """Its name on the terminal."""
        return f"{self.name} by {self.explainer}" if self.explainer else self.name

    @property
    def key(self) -> str:
        """Its key in Context.done."""
        return f"{self.name}/{self.explainer}" if self.explainer else self.name
