"""Record a sweep in MLflow: a run that compares its jobs, whose own runs are its children."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.sweep.compare import Compared
from neuron_atlas.workflows.sweep.jobs import LAYERS, Ended, Job, sweep_name
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
from neuron_atlas.workflows.tracking.tracker import PartOf, flat, log_inputs, log_stages

_BETWEEN = " | "


class SweepRecord:
    """The record of a sweep. shown_uri: the MLflow to look at."""

    def __init__(self, local: Path, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._recorder = Recorder(local)
        self.shown_uri = self._recorder.shown_uri
        name = sweep_name(jobs)
        tracking = jobs[0].settings.tracking
        configs = [{path: str(value) for path, value in flat(job.config).items()} for job in jobs]
        self._record = RunRecord(
            self._recorder,
            tracking.experiment,
            short(f"{tracking.run_name}: {name}" if tracking.run_name else f"sweep: {name}"),
            self._note("It is running, or was killed.", []),
            _together([run_tags(job.settings) for job in jobs])
            | {"sweep": name, "jobs": str(len(jobs))},
            _together(configs),
        )
        self._logged: set[tuple[str, int]] = set()
        self._has_inputs = False

    def part(self, job: Job) -> PartOf:
        """Return what makes a job's run a child of this one."""
        tags = {"sweep": sweep_name(self._jobs), "job": job.name}
        return PartOf(self._record, short(job.name), tags)

    def shared(self, context: Context) -> None:
        """Log what was computed for all jobs together."""
        log_stages(self._record, context)
        self._log_inputs(context)

    def job(self, ended: Ended) -> None:
        """Log a job's results by layer, next to those of the other jobs."""
        if ended.is_whole:
            assert ended.context is not None
            self._record.metrics(self._by_layer(ended.job, result_metrics(ended.context)))
            self._log_inputs(ended.context)

    def finish(
        self,
        status: str,
        ended: Sequence[Ended],
        compared: Compared | None = None,
        error: str = "",
    ) -> None:
        """Log the comparison, and end the run: FINISHED, FAILED or KILLED."""
        finished = sum(one.status == 0 for one in ended)
        self._record.metrics(sweep_metrics(len(self._jobs), len(ended), finished))
        lines = [f"{one.job.name}: {one.line}" for one in ended if one.line]
        if error or lines:
            self._record.tags({"error": error or "\n".join(lines)})
        if compared is not None:
            self._record.files(compared.folder, compared.names, "comparison")
            self._record.table(compared.columns, "comparison.json")
        self._record.note(self._note(f"{finished} of {len(self._jobs)} jobs finished.", ended))
        self._record.end(status)
        self._recorder.close()

    def _log_inputs(self, context: Context) -> None:
        """The dataset and the subject, of those that differ the first."""
        if not self._has_inputs:
            self._has_inputs = True
            log_inputs(self._record, context)

    def _by_layer(self, job: Job, values: Any) -> list[Value]:
        """Return the metrics whose step is a layer, under a name for the job's other settings."""
        apart = "".join(
            letter if letter.isalnum() or letter in "._- " else " " for letter in job.beside_layers
        )
        found = []
        for name, value, step in values:
            group, _, rest = name.partition("/")
            if group in BY_LAYER:
                name = f"{group}/{apart}/{rest}" if apart else name
                # Of two jobs that share a layer the first one's is drawn.
                if (name, step) not in self._logged:
                    self._logged.add((name, step))
                    found.append((name, value, step))
        return found

    def _note(self, state: str, ended: Sequence[Ended]) -> str:
        about = f"**A sweep** over `{sweep_name(self._jobs)}`: a run for each is below. {state}"
        rows = [_row(one) for one in ended]
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


def short(name: str) -> str:
    """A name as MLflow's table has room for it: layers need no path."""
    return name.replace(f"{LAYERS}=", "layers=")


def _row(ended: Ended) -> str:
    if not ended.is_whole:
        return f"| {ended.job.name} | {ended.line or 'nothing to compare'} |||||||"
    assert ended.context is not None
    summary = read_summary(ended.context)
    neurons = summary["neurons"]
    total = sum(neurons.values())
    shares = [f"{neurons[name] / max(1, total):.1%}" for name in ("visual", "text", "multi-modal")]
    scores = [
        "" if value is None else f"{value:.3f}"
        for value in (summary["mean_score"], summary["mean_control"])
    ]
    beat = f"{summary['n_beat_control']:,} of {summary['n_tested']:,}"
    return f"| {' | '.join([ended.job.name, f'{total:,}', *shares, *scores, beat])} |"


def _together(settings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Join the settings of all jobs: one value if they agree, else each different one."""
    names = sorted({name for one in settings for name in one})
    return {
        name: _BETWEEN.join(dict.fromkeys(one[name] for one in settings if name in one))
        for name in names
    }
