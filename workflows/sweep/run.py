"""A sweep: its jobs one after the other on one cluster, each a run below the sweep's own.

What jobs share is computed once: samples, descriptions and the capture of all layers asked for
come first, and each job finds them done. A job that fails is told, and the others go on.

    out/sweep/<what is swept>/index.html         the jobs side by side, with figures and tables
    out/sweep/<what is swept>/jobs/<job>.json    of each what out/manifest.json is of a run
"""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts.location import location
from neuron_atlas.workflows.atlas import capture_ahead, run_atlas
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.run.errors import INTERRUPTED
from neuron_atlas.workflows.run.exit_status import outcome
from neuron_atlas.workflows.run.store import MANIFEST, local_folder, write_json
from neuron_atlas.workflows.sweep.compare import write_comparison
from neuron_atlas.workflows.sweep.jobs import (
    Ended,
    Job,
    folder_name,
    read_jobs,
    shared_capture,
    sweep_name,
)
from neuron_atlas.workflows.sweep.record import SweepRecord

FOLDER = "sweep"


def run_sweep(overrides: Sequence[Sequence[str]], configs: Sequence[Mapping[str, Any]]) -> int:
    """Run the jobs of these composed configs; the exit status of the sweep.

    0 where all jobs finished, 130 after an interruption, 1 where a job failed, 2 where those that
    did not finish were wrong calls. Raises WrongCall, or Unusable, before anything has begun.
    """
    jobs = read_jobs(overrides, configs)
    settings = jobs[0].settings
    folder = location(settings.out) / FOLDER / folder_name(sweep_name(jobs))
    record = SweepRecord(local_folder(settings.out, settings.local), jobs)
    ended: list[Ended] = []
    compared = None
    try:
        with cluster(settings.cluster):
            _run_jobs(jobs, ended, record, folder)
        compared = write_comparison(folder, sweep_name(jobs), ended)
    except KeyboardInterrupt as error:
        ended.append(_told(jobs[min(len(ended), len(jobs) - 1)], error))
    except BaseException as error:
        record.finish("FAILED", ended, error=str(error))
        raise
    status = _status(ended)
    state = {0: "FINISHED", INTERRUPTED: "KILLED"}.get(status, "FAILED")
    record.finish(state, ended, compared)
    finished = sum(one.status == 0 for one in ended)
    say(f"\nsweep      {finished} of {len(jobs)} jobs finished")
    if compared is not None:
        say(f"compared   {compared.page}")
    say(f"mlflow     {record.shown_uri}")
    return status


def _run_jobs(jobs: Sequence[Job], ended: list[Ended], record: SweepRecord, folder: Path) -> None:
    captured: set[str] = set()
    for number, job in enumerate(jobs):
        say(f"\njob        {number + 1}/{len(jobs)}  {job.name}")
        try:
            if job.captured not in captured:
                captured.add(job.captured)
                _capture_for_all(job, jobs, record)
            context = run_atlas(job.config, record.part(job))
        except (Exception, KeyboardInterrupt) as error:
            ended.append(_told(job, error))
            if isinstance(error, KeyboardInterrupt):
                return
            continue
        ended.append(Ended(job, 0, context=context))
        if not job.settings.is_dry_run:  # Which leaves the manifest of a run before it.
            manifest = json.loads((context.store.out / MANIFEST).read_text(encoding="utf-8"))
            write_json(
                folder / "jobs" / f"{folder_name(job.name)}.json", manifest | {"job": job.choices}
            )
        record.job(ended[-1])


def _capture_for_all(job: Job, jobs: Sequence[Job], record: SweepRecord) -> None:
    """Capture what this job and others want of the same samples, in one pass."""
    settings = shared_capture(job, jobs)
    if settings is None:
        return
    say("shared     by the jobs: what comes before their layers part")
    try:
        record.shared(capture_ahead(settings))
    except Exception as error:
        # One layer that does not exist must not stop the jobs of those that do.
        say(f"neuron-atlas: {outcome(error)[1]}\nshared     not; the jobs go on, each by itself")


def _told(job: Job, error: BaseException) -> Ended:
    status, line = outcome(error)
    if status == INTERRUPTED:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # What is left to do takes a moment.
    say(f"neuron-atlas: {line}" if status == INTERRUPTED else f"neuron-atlas: {job.name}: {line}")
    return Ended(job, status, line)


def _status(ended: Sequence[Ended]) -> int:
    statuses = {one.status for one in ended} - {0}
    for status in (INTERRUPTED, 1, 2):
        if status in statuses:
            return status
    return 0
