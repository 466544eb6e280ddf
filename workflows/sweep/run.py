"""Run a sweep: its jobs one after another on one cluster, each as a child of the sweep's run.

Shared work runs once: samples, descriptions and the capture of all the jobs' layers come first, and
each job then skips them. If a job fails, its error is logged and the next job starts.

    out/sweep/<swept settings>/index.html         comparison of the jobs: figures and tables
    out/sweep/<swept settings>/jobs/<job>.json    each job's manifest, as out/manifest.json
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts.location import parse_location
from neuron_atlas.workflows.atlas import run_atlas, run_through_capture
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.run.errors import INTERRUPTED
from neuron_atlas.workflows.run.exit_status import exit_status_of
from neuron_atlas.workflows.run.store import MANIFEST, local_folder, write_json
from neuron_atlas.workflows.sweep.compare import write_comparison
from neuron_atlas.workflows.sweep.jobs import (
    Job,
    JobResult,
    folder_name,
    read_jobs,
    shared_capture,
    sweep_name,
)
from neuron_atlas.workflows.sweep.record import SweepRecord
from neuron_atlas.workflows.tracking.address import check_server

FOLDER = "sweep"


def run_sweep(overrides: Sequence[Sequence[str]], configs: Sequence[Mapping[str, Any]]) -> int:
    """Run the jobs of composed configs; return the exit status of the sweep.

    0 if all jobs finished, 130 after an interruption, 1 if a job failed, 2 if all jobs that did not
    finish were wrong calls. overrides, configs: one for each job. Raises ConfigError, ProviderError
    or ModelError before any job starts.
    """
    jobs = read_jobs(overrides, configs)
    check_server()
    settings = jobs[0].settings
    folder = parse_location(settings.out) / FOLDER / folder_name(sweep_name(jobs))
    record = SweepRecord(local_folder(settings.out, settings.local_dir), jobs)
    results: list[JobResult] = []
    comparison = None
    try:
        with cluster(settings.cluster):
            _run_jobs(jobs, results, record, folder)
        comparison = write_comparison(folder, sweep_name(jobs), results)
    except KeyboardInterrupt as error:
        results.append(_failed(jobs[min(len(results), len(jobs) - 1)], error))
    except BaseException as error:
        record.finish("FAILED", results, error=str(error))
        raise
    status = _status(results)
    state = {0: "FINISHED", INTERRUPTED: "KILLED"}.get(status, "FAILED")
    record.finish(state, results, comparison)
    finished = sum(one.status == 0 for one in results)
    print_line(f"\nsweep      {finished} of {len(jobs)} jobs finished")
    if comparison is not None:
        print_line(f"compared   {comparison.page}")
    print_line(f"mlflow     {record.where()}")
    return status


def _run_jobs(
    jobs: Sequence[Job], results: list[JobResult], record: SweepRecord, folder: Path
) -> None:
    captured: set[str] = set()
    for number, job in enumerate(jobs):
        print_line(f"\njob        {number + 1}/{len(jobs)}  {job.name}")
        try:
            if job.capture_key not in captured:
                captured.add(job.capture_key)
                _capture_for_all(job, jobs, record)
            context = run_atlas(job.config, record.membership(job))
        except (Exception, KeyboardInterrupt) as error:
            results.append(_failed(job, error))
            if isinstance(error, KeyboardInterrupt):
                return
            continue
        results.append(JobResult(job, 0, context=context))
        if not job.settings.is_dry_run:  # A dry run writes no manifest.
            manifest = json.loads((context.store.out / MANIFEST).read_text(encoding="utf-8"))
            write_json(
                folder / "jobs" / f"{folder_name(job.name)}.json", manifest | {"job": job.choices}
            )
        record.job(results[-1])


def _capture_for_all(job: Job, jobs: Sequence[Job], record: SweepRecord) -> None:
    """Capture the layers of all jobs with the same samples as this one, in one pass."""
    settings = shared_capture(job, jobs)
    if settings is None:
        return
    print_line("shared     stages of all jobs up to capture, with all their layers")
    try:
        record.shared(run_through_capture(settings))
    except Exception as error:
        # A layer that does not exist must not stop the jobs with other layers.
        print_line(
            f"neuron-atlas: {exit_status_of(error)[1]}\nshared     failed; "
            "the jobs go on, each by itself"
        )


def _failed(job: Job, error: BaseException) -> JobResult:
    status, line = exit_status_of(error)
    if status == INTERRUPTED:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # Ending takes a moment.
    print_line(
        f"neuron-atlas: {line}" if status == INTERRUPTED else f"neuron-atlas: {job.name}: {line}"
    )
    return JobResult(job, status, line)


def _status(results: Sequence[JobResult]) -> int:
    statuses = {one.status for one in results} - {0}
    for status in (INTERRUPTED, 1, 2):
        if status in statuses:
            return status
    return 0
