"""What a stage is, and the one way in which stages are run, skipped and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tasks.settings import identity
from tasks.subject.revision import subject_revision
from workflows.progress import say
from workflows.settings import Settings
from workflows.store import Manifest, Store, fingerprint
from workflows.subject_pool import Extent, SubjectPool


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


@dataclass
class Context:
    """What the stages of one run share."""

    settings: Settings
    store: Store
    pool: SubjectPool
    start_cluster: Callable[[], None]
    done: dict[str, Manifest] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
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
        """The files of an artifact that an earlier stage of this run left."""
        return self.store.paths(self.done[stage], artifact)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds of a part of the run under `name`, less those of parts within it."""
        start = time.monotonic()
        counted = sum(self.seconds.values())
        yield
        within = sum(self.seconds.values()) - counted
        spent = time.monotonic() - start - within
        self.seconds[name] = self.seconds.get(name, 0.0) + spent


def count_rows(folder: Path, files: Mapping[str, list[str]]) -> dict[str, int]:
    """Rows of each artifact, read from the footers of its files."""
    return {
        artifact: sum(pq.read_metadata(folder / name).num_rows for name in names)
        for artifact, names in files.items()
    }


def run_stage(stage: Stage, context: Context) -> None:
    """Run a stage unless a complete artifact of the same fingerprint is there."""
    made_from = {name: context.done[name].identity for name in stage.reads}
    parameters = stage.parameters(context)
    mark = fingerprint(stage.name, stage.version, parameters, made_from)
    manifest = context.store.find(stage.name, mark)
    if manifest is not None:
        context.skipped.append(stage.name)
        say(f"{stage.name:<10} already done ({mark[:8]})")
    else:
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
    if stage.tidy is not None:  # Also where a run was killed between the commit and this.
        stage.tidy(context.store.folder(stage.name, mark))
    context.done[stage.name] = manifest
