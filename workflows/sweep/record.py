"""Record a sweep in MLflow: one run that compares the jobs, with their runs as its children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.sweep.compare import SweepComparison
from neuron_atlas.workflows.sweep.jobs import LAYERS, Job, JobResult, sweep_name
from neuron_atlas.workflows.tracking.descriptions import (
    run_tags,
    score_in_words,
    types_in_words,
)
from neuron_atlas.workflows.tracking.metrics import METRICS_NOTE, read_summary, sweep_metrics
from neuron_atlas.workflows.tracking.recorder import Recorder, RunRecord
from neuron_atlas.workflows.tracking.tracker import SweepMembership, flatten, log_inputs, log_stages

_BETWEEN = " | "


class SweepRecord:
    """Record of a sweep in MLflow."""

    def __init__(self, local: Path, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._recorder = Recorder(local)
        name = sweep_name(jobs)
        tracking = jobs[0].settings.tracking
        configs = [
            {path: str(value) for path, value in flatten(job.config).items()} for job in jobs
        ]
        self._record = RunRecord(
            self._recorder,
            tracking.experiment,
            short_setting_name(
                f"{tracking.run_name}: {name}" if tracking.run_name else f"sweep: {name}"
            ),
            self._note("It is running, or was killed.", []),
            _joined_values([run_tags(job.settings) for job in jobs])
            | {"sweep": name, "jobs": str(len(jobs))},
            _joined_values(configs),
        )
        self._has_inputs = False

    @property
    def display_uri(self) -> str:
        """Address of MLflow for the user."""
        return self._record.display_uri

    def membership(self, job: Job) -> SweepMembership:
        """Return the membership that makes a job's run a child of this one."""
        tags = {"sweep": sweep_name(self._jobs), "job": job.name}
        return SweepMembership(self._record, short_setting_name(job.name), tags)

    def shared(self, context: Context) -> None:
        """Log the stages that ran for all jobs together."""
        log_stages(self._record, context)
        self._log_inputs(context)

    def job(self, result: JobResult) -> None:
        """Log the inputs of a job with results."""
        if result.has_results:
            assert result.context is not None
            self._log_inputs(result.context)

    def where(self) -> str:
        """Return where the user finds the sweep in MLflow."""
        return self._recorder.where(self._record)

    def finish(
        self,
        status: str,
        results: Sequence[JobResult],
        comparison: SweepComparison | None = None,
        error: str = "",
    ) -> None:
        """Log the comparison, and end the run. status: FINISHED, FAILED or KILLED."""
        finished = sum(one.status == 0 for one in results)
        self._record.metrics(sweep_metrics(len(self._jobs), len(results), finished))
        lines = [f"{one.job.name}: {one.line}" for one in results if one.line]
        if error or lines:
            self._record.tags({"error": error or "\n".join(lines)})
        pictures: list[str] = []
        if comparison is not None:
            self._record.files(comparison.folder, comparison.names, "comparison")
            self._record.table(comparison.columns, "comparison.json")
            pictures = [
                self._record.picture(comparison.folder / name, f"{Path(name).stem} by layer")
                for name in comparison.names
                if name.endswith(".png")
            ]
        state = f"{finished} of {len(self._jobs)} jobs finished."
        self._record.note(self._note(state, results, pictures))
        self._record.end(status)
        self._recorder.close()

    def _log_inputs(self, context: Context) -> None:
        """Log the dataset and the subject of the first job that has them."""
        if not self._has_inputs:
            self._has_inputs = True
            log_inputs(self._record, context)

    def _note(self, state: str, results: Sequence[JobResult], pictures: Sequence[str] = ()) -> str:
        about = f"**A sweep** over `{sweep_name(self._jobs)}`. Its jobs are the runs below. {state}"
        if not results:
            return about
        parts = [
            about,
            "\n".join(_line(one) for one in results),
            " ".join(pictures),
            "**To compare**: *Artifacts*, `comparison/index.html` has the page, `comparison.json` "
            "and `comparison/comparison.csv` all numbers by layer.",
            "**How to read the metrics**",
            METRICS_NOTE,
        ]
        return "\n\n".join(part for part in parts if part)


def short_setting_name(name: str) -> str:
    """Return a name that fits MLflow's table: capture.layers becomes layers."""
    return name.replace(f"{LAYERS}=", "layers=")


def _line(result: JobResult) -> str:
    """Return a job as an item of a list, with its types and its scores."""
    if not result.has_results:
        return f"- **{result.job.name}**: {result.line or 'nothing to compare'}"
    assert result.context is not None
    summary = read_summary(result.context)
    scores = [
        f"{row['explainer']}, simulated by {row['simulator']}: "
        f"{score_in_words(row, summary['level'])}"
        for row in summary["by_explainer"]
    ]
    words = [types_in_words(summary["neurons"]), *(scores or ["no explanation could be scored"])]
    return f"- **{result.job.name}**: {'. '.join(words)}"


def _joined_values(settings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Join the settings of all jobs: one value if they are equal, else all distinct ones."""
    names = sorted({name for one in settings for name in one})
    return {
        name: _BETWEEN.join(dict.fromkeys(one[name] for one in settings if name in one))
        for name in names
    }
