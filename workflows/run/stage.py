"""What a stage is, and the one way in which stages are run, skipped and kept."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts import row_count
from neuron_atlas.tasks.settings import identity
from neuron_atlas.tasks.subject.revision import subject_revision
from neuron_atlas.workflows.cluster.nodes_used import put_nodes_back, take_nodes
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.cluster.subject_pool import Extent, SubjectPool
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.models.servers import ServerPool
from neuron_atlas.workflows.run.store import Manifest, Store, fingerprint

LogLive = Callable[[Mapping[str, float], int], None]
"""Logs metrics by name, at a step."""

ASK_AGAIN = "may_pass_later"
"""In a manifest's `about`: the number of rows whose failure was transient. A later call does not
take such a stage for done, and its parts with such rows are done again."""


@dataclass(frozen=True)
class Written:
    """What a stage's `run` left in its folder (see Manifest)."""

    files: Mapping[str, list[str]]
    rows: Mapping[str, int]
    content: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    reads: the stages whose artifacts it reads. parameters: of the settings, what decides its
    content. version: raised when its code computes something else. run: does the work.
    """

    name: str
    version: int
    reads: tuple[str, ...]
    parameters: Callable[[Context], Mapping[str, Any]]
    run: Callable[[Context, Path], Written]
    tidy: Callable[[Path], None] | None = None
    """Called once the stage is complete: removes what only resuming it needed."""
    per_explainer: bool = False
    """Whether it is run, kept and skipped for each explainer apart."""
    select: Callable[[Context, Manifest], Manifest | None] = lambda context, manifest: manifest
    """Of all that was ever written with a fingerprint, what this run asked for; None where some of
    it is not there yet, and the stage must be run to add it."""


@dataclass
class Context:
    """What the stages of one run share."""

    settings: Settings
    store: Store
    pool: SubjectPool
    start_cluster: Callable[[], None]
    done: dict[str, Manifest] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    """Of the cluster, that worked on each part of the run."""
    skipped: list[str] = field(default_factory=list)
    by_explainer: dict[str, Context] = field(default_factory=dict)
    """The context of each explainer: its settings alone, and what was done for it."""
    log_live: LogLive = lambda metrics, step: None
    """Metrics of a stage that is running, by their step."""
    apart: str = ""
    """The explainer whose context this is, in a run of several."""
    servers: ServerPool | None = None
    """Of the simulator's model."""
    unfinished: list[Path] = field(default_factory=list)
    """Explanations that were written by a run that then failed, of all explainers."""
    kept: Manifest | None = None
    """What the stage that is being run left earlier, where this run adds to it."""
    _revision: str | None = None
    _extent: Extent | None = None

    def subject_identity(self) -> dict[str, Any]:
        """What of the subject decides activations: weights, number format and question."""
        subject = self.settings.subject
        if self._revision is None:
            self._revision = subject_revision(subject)
        return identity(subject) | {"revision": self._revision}

    def layers(self) -> tuple[int, ...]:
        """The layers to capture. Loads the subject unless they are known from an earlier run."""
        captured = self.done.get("capture")
        if captured is not None:
            return tuple(captured.about["layers"])
        return self.extent().layers

    def extent(self) -> Extent:
        """What is captured of the subject, which is loaded to know it. Raises SubjectError."""
        if self._extent is None:
            self._extent = self.pool.check(self.settings.capture.layers)
        return self._extent

    def folder(self, stage: str) -> Path:
        """Where an earlier stage of this run left its files."""
        return self.store.folder(stage, self.done[stage].fingerprint)

    def paths(self, stage: str, artifact: str) -> list[Path]:
        """The files of an artifact that an earlier stage of this run left, for all explainers."""
        made = [manifest for manifest in self.manifests() if manifest.stage == stage]
        return [path for manifest in made for path in self.store.paths(manifest, artifact)]

    def identity(self, stage: str) -> str:
        """What the fingerprints of later stages are made from, of an earlier stage of this run."""
        made = [manifest.identity for manifest in self.manifests() if manifest.stage == stage]
        return made[0] if len(made) == 1 else hashlib.sha256("+".join(made).encode()).hexdigest()

    def manifests(self) -> list[Manifest]:
        """Those of all stages that are complete, and of all explainers."""
        apart = [
            manifest
            for context in self.by_explainer.values()
            for name, manifest in context.done.items()
            if name not in self.done
        ]
        return [*self.done.values(), *apart]

    def each_explainer(self) -> Iterator[tuple[str, Context]]:
        """The name and the context of each; what is done for all so far is done for it."""
        for settings in self.settings.explain.each:
            name = settings.explainer.name
            if name not in self.by_explainer:
                self.by_explainer[name] = replace(
                    self,
                    settings=replace(self.settings, explain=settings),
                    apart=name if self.settings.explain.further else "",
                    done=dict(self.done),
                    by_explainer={},
                )
            yield name, self.by_explainer[name]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds of a part of the run under `name`, less those of parts within it, and
        the nodes that worked on it."""
        start = time.monotonic()
        counted = sum(self.seconds.values())
        around = take_nodes()
        yield
        self.nodes[name] = max(self.nodes.get(name, 0), len(take_nodes()))
        put_nodes_back(around)
        within = sum(self.seconds.values()) - counted
        spent = time.monotonic() - start - within
        self.seconds[name] = self.seconds.get(name, 0.0) + spent


def count_rows(folder: Path, files: Mapping[str, list[str]]) -> dict[str, int]:
    """Rows of each artifact, read from the footers of its files."""
    return {
        artifact: sum(row_count(folder / name) for name in names)
        for artifact, names in files.items()
    }


def run_stage(stage: Stage, context: Context) -> None:
    """Run a stage unless a complete artifact of the same fingerprint is there."""
    if not stage.per_explainer:
        _run_once(stage, context, stage.name)
        return
    several = bool(context.settings.explain.further)
    for name, apart in context.each_explainer():
        _run_once(stage, apart, f"{stage.name} by {name}" if several else stage.name)
        if not several:
            context.done[stage.name] = apart.done[stage.name]


def _run_once(stage: Stage, context: Context, title: str) -> None:
    made_from = {name: context.identity(name) for name in stage.reads}
    parameters = stage.parameters(context)
    mark = fingerprint(stage.name, stage.version, parameters, made_from)
    manifest = context.store.find(stage.name, mark)
    if manifest is not None and manifest.about.get(ASK_AGAIN):
        say(f"{title:<10} {manifest.about[ASK_AGAIN]:,} failures may pass now: tried again")
        context.store.reopen(manifest)
        manifest = None
    context.kept, manifest = manifest, manifest and stage.select(context, manifest)
    if manifest is not None:
        context.skipped.append(title)
        say(f"{title:<10} already done ({mark[:8]})")
    else:
        if title != stage.name:
            say(title)
        context.start_cluster()
        before = dict(context.seconds)
        with context.timed(stage.name):
            written = stage.run(context, context.store.folder(stage.name, mark))
        spent = {
            name: round(value - before.get(name, 0.0), 3)
            for name, value in context.seconds.items()
            if value != before.get(name)
        }
        manifest = Manifest(
            stage=stage.name,
            version=stage.version,
            fingerprint=mark,
            parameters=parameters,
            made_from=made_from,
            files=written.files,
            rows=written.rows,
            seconds=spent,
            content=written.content,
            about=written.about,
        )
        context.store.commit(manifest)
        manifest = stage.select(context, manifest)
        assert manifest is not None, f"{stage.name} did not write what it was asked for"
    if stage.tidy is not None:  # Also where a run was killed between the commit and this.
        stage.tidy(context.store.folder(stage.name, mark))
    context.done[stage.name] = manifest
