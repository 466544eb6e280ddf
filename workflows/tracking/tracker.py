"""Record one atlas in MLflow: its settings, cost and results. Only the driver logs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.report.controls import CONTROLS
from neuron_atlas.tasks.settings import identity
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.run.budget_end import budget_lines
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.store import MANIFEST
from neuron_atlas.workflows.tracking.descriptions import (
    run_name,
    run_note,
    run_tags,
    subject_name,
)
from neuron_atlas.workflows.tracking.group_metrics import group_metrics
from neuron_atlas.workflows.tracking.metrics import (
    cost_metrics,
    live_metrics,
    read_summary,
    stage_metrics,
    summary_metrics,
)
from neuron_atlas.workflows.tracking.recorder import Recorder, RunRecord
from neuron_atlas.workflows.tracking.tables import (
    call_table,
    explanation_table,
    failure_table,
    row_table,
    score_table,
)

_PICTURES = {"types_by_layer": "Types by layer", "scores": "Scores and their strongest control"}
"""Figures of the report that the run's description shows, with their titles."""
_STATES = {"FINISHED": "", "FAILED": "**It failed.**", "KILLED": "**It was interrupted.**"}


@dataclass(frozen=True)
class SweepMembership:
    """Membership of a run in a sweep: the sweep's record, the run's name in it, and its tags."""

    record: RunRecord
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Tracker:
    """Record of one atlas in MLflow, from the first stage to the last.

    local: folder for MLflow's database. config: the settings as a plain config, logged as
    parameters. membership: of the sweep that the run is a job of.
    """

    def __init__(
        self,
        settings: Settings,
        local: Path,
        config: Mapping[str, Any],
        membership: SweepMembership | None = None,
    ) -> None:
        self._settings = settings
        self._own = Recorder(local) if membership is None else None
        recorder = membership.record.recorder if membership is not None else self._own
        assert recorder is not None
        self._spending: dict[str, float] = {}
        self._pictures: list[str] = []
        name = settings.tracking.run_name or run_name(settings)
        self._record = RunRecord(
            recorder,
            settings.tracking.experiment,
            name if membership is None else membership.name,
            run_note(settings, "It is running, or was killed.", None, {}),
            run_tags(settings) | dict(membership.tags if membership else {}),
            {path: str(value) for path, value in sorted(flatten(config).items())},
            None if membership is None else membership.record,
        )

    @property
    def display_uri(self) -> str:
        """Address of MLflow for the user."""
        return self._record.display_uri

    def log_live(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the cost of a running stage. metrics: of `spending_metrics`."""
        self._spending |= metrics
        logged = live_metrics(metrics).items()
        self._record.metrics((name, value, step) for name, value in logged)

    def where(self) -> str:
        """Return where the user finds the run in MLflow."""
        return self._record.recorder.where(self._record)

    def finish(self, context: Context, status: str, error: str = "") -> None:
        """Log the results, and end the run. status: FINISHED, FAILED or KILLED."""
        try:
            self._log_results(context, status, error)
        except Exception as failure:  # The artifacts exist even if they cannot be logged.
            print_line(f"mlflow     not all is logged: {failure!r}")
        self._record.end(status)
        if self._own is not None:
            self._own.close()

    def _log_results(self, context: Context, status: str, error: str) -> None:
        summary = read_summary(context) if "report" in context.done else None
        if summary is not None:
            self._log_report(context, summary)
        self._record.metrics(cost_metrics(self._spending))
        log_stages(self._record, context)
        self._record.table(row_table(context), "tables/rows.json")
        if self._spending:
            self._record.table(call_table(self._spending), "tables/calls.json")
        if error:
            self._record.tags({"error": error})
        if "samples" in context.done:
            log_inputs(self._record, context)
        explained = [*context.paths("explain", "explanations"), *context.stats.unfinished]
        if explained:
            table = explanation_table(
                explained,
                context.paths("score", "scores"),
                context.paths("faithfulness", "faithfulness"),
            )
            self._record.table(table, "explanations.json")
        note = run_note(self._settings, _STATES[status], summary, self._spending, self._pictures)
        self._record.note(note)

    def _log_report(self, context: Context, summary: Mapping[str, Any]) -> None:
        self._record.metrics(summary_metrics(summary))
        self._record.metrics(group_metrics(context))
        if ended := budget_lines(summary["failures"], self._settings):
            self._record.tags({"ended_by_budget": "; ".join(ended)})
        if control := summary["strongest_control"]:
            self._record.tags({"strongest_control": CONTROLS[control]})
        self._record.table(failure_table(summary), "tables/failures.json")
        scored = context.paths("score", "score_aggregates")
        self._record.table(score_table(scored), "tables/scores.json")
        # The site next to the page may have thousands of files, so it is not copied.
        names = context.done["report"].files["report"]
        self._record.files(context.folder("report"), names, "report")
        figures = context.folder("report") / "figures"
        self._pictures = [
            self._record.picture(figures / f"{name}.png", title)
            for name, title in _PICTURES.items()
            if f"figures/{name}.png" in names
        ]
        manifest = context.store.out / MANIFEST
        if manifest.is_file():
            # A copy, because the next run in the folder overwrites it.
            self._record.text(manifest.read_text(encoding="utf-8"), MANIFEST)


def log_stages(record: RunRecord, context: Context) -> None:
    """Log the seconds of the stages, and which stages were already done."""
    record.metrics(stage_metrics(context))
    record.tags({"stages_already_done": ", ".join(context.stats.skipped) or "none"})


def log_inputs(record: RunRecord, context: Context) -> None:
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


def flatten(config: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return a nested config as one mapping, by path such as capture.top_n."""
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            settings |= flatten(value, f"{path}{key}.")
        else:
            settings[f"{path}{key}".replace("_target_", "class")] = value
    return settings
