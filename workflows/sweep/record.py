"""Record a sweep in MLflow: one run that compares the jobs, with their runs as its children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.sweep.compare import SweepComparison
from neuron_atlas.workflows.sweep.jobs import LAYERS, Job, JobResult, sweep_name
from neuron_atlas.workflows.tracking.descriptions import run_tags
from neuron_atlas.workflows.tracking.metrics import (
    BY_LAYER,
    METRICS_NOTE,
    Value,
    read_summary,
    result_metrics,
    sweep_metrics,
)
from neuron_atlas.workflows.tracking.recorder import Recorder, RunRecord
from neuron_atlas.workflows.tracking.tracker import SweepMembership, flatten, log_inputs, log_stages

_BETWEEN = " | "


class SweepRecord:
    """Record of a sweep in MLflow. display_uri: address of MLflow for the user."""

    def __init__(self, local: Path, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._recorder = Recorder(local)
        self.display_uri = self._recorder.display_uri
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
        self._logged: set[tuple[str, int]] = set()
        self._has_inputs = False

    def membership(self, job: Job) -> SweepMembership:
        """Return the membership that makes a job's run a child of this one."""
        tags = {"sweep": sweep_name(self._jobs), "job": job.name}
        return SweepMembership(self._record, short_setting_name(job.name), tags)

    def shared(self, context: Context) -> None:
        """Log the stages that ran for all jobs together."""
        log_stages(self._record, context)
        self._log_inputs(context)

    def job(self, result: JobResult) -> None:
        """Log a job's results by layer, next to those of the other jobs."""
        if result.has_results:
            assert result.context is not None
            self._record.metrics(self._by_layer(result.job, result_metrics(result.context)))
            self._log_inputs(result.context)

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
        if comparison is not None:
            self._record.files(comparison.folder, comparison.names, "comparison")
            self._record.table(comparison.columns, "comparison.json")
        self._record.note(self._note(f"{finished} of {len(self._jobs)} jobs finished.", results))
        self._record.end(status)
        self._recorder.close()

    def _log_inputs(self, context: Context) -> None:
        """Log the dataset and the subject of the first job that has them."""
        if not self._has_inputs:
            self._has_inputs = True
            log_inputs(self._record, context)

    def _by_layer(self, job: Job, values: Any) -> list[Value]:
        """Return the metrics whose step is a layer; their names contain the job's other choices."""
        suffix = "".join(
            letter if letter.isalnum() or letter in "._- " else " " for letter in job.other_choices
        )
        found = []
        for name, value, step in values:
            group, _, rest = name.partition("/")
            if group in BY_LAYER:
                name = f"{group}/{suffix}/{rest}" if suffix else name
                # If two jobs share a layer, the first one's value is logged.
                if (name, step) not in self._logged:
                    self._logged.add((name, step))
                    found.append((name, value, step))
        return found

    def _note(self, state: str, results: Sequence[JobResult]) -> str:
        about = f"**A sweep** over `{sweep_name(self._jobs)}`. Its jobs are the runs below. {state}"
        rows = [_row(one) for one in results]
        if not rows:
            return about
        table = (
            "| job | neurons | visual | text | multi-modal | correlation | of control "
            "| beat control |\n|---|--:|--:|--:|--:|--:|--:|--:|\n" + "\n".join(rows)
        )
        return "\n\n".join(
            [
                about,
                table,
                "**To compare**: *Artifacts*, `comparison/index.html` (page, figures and "
                "`comparison.csv`); the *Model metrics* `types_by_layer/*` and `score_by_layer/*` "
                "have the layer as step.",
                "**How to read the metrics**",
                METRICS_NOTE,
            ]
        )


def short_setting_name(name: str) -> str:
    """Return a name that fits MLflow's table: capture.layers becomes layers."""
    return name.replace(f"{LAYERS}=", "layers=")


def _row(result: JobResult) -> str:
    if not result.has_results:
        return f"| {result.job.name} | {result.line or 'nothing to compare'} |||||||"
    assert result.context is not None
    summary = read_summary(result.context)
    neurons = summary["neurons"]
    total = sum(neurons.values())
    shares = [f"{neurons[name] / max(1, total):.1%}" for name in ("visual", "text", "multi-modal")]
    scores = [
        "" if value is None else f"{value:.3f}"
        for value in (summary["mean_score"], summary["mean_control"])
    ]
    beat = f"{summary['n_beat_control']:,} of {summary['n_tested']:,}"
    return f"| {' | '.join([result.job.name, f'{total:,}', *shares, *scores, beat])} |"


def _joined_values(settings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Join the settings of all jobs: one value if they are equal, else all distinct ones."""
    names = sorted({name for one in settings for name in one})
    return {
        name: _BETWEEN.join(dict.fromkeys(one[name] for one in settings if name in one))
        for name in names
    }
