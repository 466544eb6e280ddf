"""One MLflow run a call: what was asked, what it took, what came out. Only the driver logs.

Tracking never costs a run its results, nor its record: where the server cannot be reached, a line
says so, the run goes on, and what it told is logged later (see `outgoing`).
"""

from __future__ import annotations

import getpass
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.store import MANIFEST
from neuron_atlas.workflows.tracking.metrics import (
    Value,
    read_summary,
    result_metrics,
    summary_metrics,
)
from neuron_atlas.workflows.tracking.outgoing import Outgoing
from neuron_atlas.workflows.tracking.words import run_name, run_note, run_tags, subject_name

_LONGEST_PARAMETER = 500
_LONGEST_TAG = 8000
_STATES = {"FINISHED": "", "FAILED": "**It failed.**", "KILLED": "**It was interrupted.**"}


@dataclass(frozen=True)
class PartOf:
    """A run within a sweep: the sweep's record, what the run is called in it, and its tags."""

    record: Record
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Record:
    """One MLflow run, as it is told of."""

    def __init__(
        self,
        outgoing: Outgoing,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        parameters: Mapping[str, str],
        parent: Record | None = None,
    ) -> None:
        self.outgoing = outgoing
        self._key = secrets.token_hex(4)
        ours = {
            "mlflow.source.name": "neuron-atlas",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": _user(),
            "neuron_atlas_version": version("neuron-atlas"),
        }
        self._log(
            "begin",
            experiment=experiment,
            name=name,
            parent=None if parent is None else parent._key,
            tags={name: value[:_LONGEST_TAG] for name, value in (ours | dict(tags)).items()},
            parameters={name: value[:_LONGEST_PARAMETER] for name, value in parameters.items()},
        )

    def metrics(self, values: Iterable[Value]) -> None:
        """Log metrics by name, value and step."""
        self._log("metrics", values=list(values))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._log("tags", **{name: value[:_LONGEST_TAG] for name, value in tags.items()})

    def note(self, markdown: str) -> None:
        """Set the description."""
        self.tags({"mlflow.note.content": markdown})

    def dataset(
        self, name: str, digest: str, source: str, profile: str, tags: Mapping[str, str]
    ) -> None:
        """Log the dataset as an input."""
        told = {"name": name, "digest": digest, "source": source, "profile": profile}
        self._log("dataset", tags=dict(tags), **told)

    def subject(self, name: str, content: str, params: Mapping[str, str]) -> None:
        """Log the subject as an input; content: a hash of what it is."""
        self._log("subject", name=name, content=content, params=dict(params))

    def files(self, folder: Path, names: Iterable[str], into: str) -> None:
        """Log files of a folder, by their names in it, below `into` among the artifacts."""
        self._log("files", folder=str(folder), names=list(names), to=into)

    def text(self, text: str, name: str) -> None:
        """Log a text as an artifact."""
        self._log("text", text=text, to=name)

    def table(self, columns: Mapping[str, list[Any]], name: str) -> None:
        """Log a table that MLflow's page shows."""
        self._log("table", columns=dict(columns), to=name)

    def explanations(self, paths: Iterable[Path]) -> None:
        """Log tables of explanations as one."""
        self._log("explanations", paths=[str(path) for path in paths])

    def end(self, status: str) -> None:
        """Say that the run is over: FINISHED, FAILED or KILLED."""
        self._log("end", status=status)

    def _log(self, kind: str, **content: Any) -> None:
        self.outgoing.log(self._key, kind, content)


class Tracker:
    """What is told of one atlas, from the first stage to the last."""

    def __init__(
        self,
        settings: Settings,
        out: Path,
        config: Mapping[str, Any],
        part_of: PartOf | None = None,
    ) -> None:
        self._settings = settings
        self._own = Outgoing(out) if part_of is None else None
        outgoing = self._own or part_of.record.outgoing  # type: ignore[union-attr]
        self.shown_uri = outgoing.shown_uri
        given = settings.tracking.run_name or run_name(settings)
        self._record = Record(
            outgoing,
            settings.tracking.experiment,
            given if part_of is None else part_of.name,
            run_tags(settings) | dict(part_of.tags if part_of else {}),
            {name: str(value) for name, value in sorted(flat(config).items())},
            None if part_of is None else part_of.record,
        )
        self._record.note(run_note(settings, "It is running, or was killed.", None))

    def log_live(self, metrics: Mapping[str, float], step: int) -> None:
        """Log metrics of a stage that is running; it holds up nothing."""
        self._record.metrics((name, value, step) for name, value in metrics.items())

    def finish(self, context: Context, status: str, error: str = "") -> None:
        """Log what the run came to; status is FINISHED, FAILED or KILLED."""
        try:
            self._tell(context, status, error)
        except Exception as failure:  # Whatever cannot be read for it, the artifacts are there.
            say(f"mlflow     not all is logged: {failure!r}")
        self._record.end(status)
        if self._own is not None:
            self._own.close()

    def _tell(self, context: Context, status: str, error: str) -> None:
        summary = read_summary(context) if "report" in context.done else None
        if summary is not None:
            # First: MLflow's compare view opens with the metric that its runs had first.
            self._log_report(context, summary)
        log_stages(self._record, context)
        rows: Counter[str] = Counter()
        for manifest in context.done.values():
            rows.update(manifest.rows)
        self._record.metrics((f"table_rows/{name}", float(n), 0) for name, n in rows.items())
        if error:
            self._record.tags({"error": error})
        if "samples" in context.done:
            log_inputs(self._record, context)
        explained = [*context.paths("explain", "explanations"), *context.record.unfinished]
        if explained:
            self._record.explanations(explained)
        self._record.note(run_note(self._settings, _STATES[status], summary))

    def _log_report(self, context: Context, summary: Mapping[str, Any]) -> None:
        self._record.metrics((name, value, 0) for name, value in summary_metrics(summary).items())
        self._record.metrics(result_metrics(context))
        # The site beside the page may have thousands of files: it stays where it is.
        names = context.done["report"].files["report"]
        self._record.files(context.folder("report"), names, "report")
        manifest = context.store.out / MANIFEST
        if manifest.is_file():
            # As it is now: the next run in the folder writes another.
            self._record.text(manifest.read_text(encoding="utf-8"), MANIFEST)


def log_stages(record: Record, context: Context) -> None:
    """Log the seconds of the stages, and which were done before."""
    record.metrics(
        (f"seconds/{stage}", spent, 0) for stage, spent in context.record.seconds.items()
    )
    record.tags({"stages_already_done": ", ".join(context.record.skipped) or "none"})


def log_inputs(record: Record, context: Context) -> None:
    """Log the dataset, and the subject once its weights are known, as inputs."""
    source = context.settings.data.source
    samples = context.done["samples"]
    count = samples.rows["samples"]
    record.dataset(
        source.title,
        samples.content[:16],
        json.dumps(identity(source), default=str),
        json.dumps({"samples": count}),
        {"samples": str(count)},
    )
    if "describe" in context.done:
        subject = context.settings.subject
        revision = str(context.subject_identity()["revision"])
        record.subject(
            subject_name(context.settings),
            revision,
            {"model": subject.model, "revision": revision, "dtype": subject.dtype},
        )


def flat(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Settings by their path, as in capture.top_n."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}{key}.")
        else:
            found[f"{path}{key}".replace("_target_", "class")] = value
    return found


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container whose user has no name.
        return "unknown"
