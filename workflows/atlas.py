"""The entry point: a Hydra config in, the stages in order, an atlas out."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.cluster.signals import stop_on_signals
from neuron_atlas.workflows.cluster.subject_pool import SubjectPool
from neuron_atlas.workflows.config.composition import (
    CONF,
    HYDRA_ERRORS,
    explain_hydra_error,
    plain_config,
    register_launcher,
    register_resolvers,
    side_by_side,
)
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.models.dry_run import dry_run
from neuron_atlas.workflows.models.servers import ServerPool
from neuron_atlas.workflows.run.errors import WrongCall
from neuron_atlas.workflows.run.exit_status import outcome
from neuron_atlas.workflows.run.output import opened_store
from neuron_atlas.workflows.run.stage import Context, Stage, run_stage
from neuron_atlas.workflows.run.summary import closing_summary
from neuron_atlas.workflows.stages import (
    analyse,
    capture,
    classify,
    describe,
    explain,
    report,
    samples,
    score,
    simulate,
)
from neuron_atlas.workflows.tracking.tracker import PartOf, Tracker

STAGES = (
    samples.STAGE,
    describe.STAGE,
    capture.STAGE,
    classify.STAGE,
    analyse.STAGE,
    explain.STAGE,
    simulate.STAGE,
    score.STAGE,
    report.STAGE,
)


def main() -> None:
    """The console script: exit status 0, 1 for a failed run, 2 for a wrong call."""
    register_resolvers()
    register_launcher()
    # Hydra then raises its errors, so that one line can say what is wrong.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    stop_on_signals()
    try:
        sys.argv[1:] = side_by_side(sys.argv[1:])
        _atlas()
    except WrongCall as error:
        _end(2, str(error))
    except HYDRA_ERRORS as error:
        _end(2, str(explain_hydra_error(error, sys.argv[1:])))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="atlas")
def _atlas(config: DictConfig) -> None:
    # Errors end the program here, for Hydra would print its own account of them.
    try:
        run_atlas(plain_config(config))
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ending takes Ray a moment.
        _end(*outcome(error))


def run_atlas(config: Mapping[str, Any], part_of: PartOf | None = None) -> Context:
    """Run all stages for a plain config, and log the run. Raises WrongCall or RunFailed.

    part_of: the sweep that it is a job of.
    """
    settings = read_settings(config)
    with _opened(settings) as context:
        tracker = Tracker(settings, context.store.local, config, part_of)
        context.log_live = tracker.log_live
        try:
            is_whole = _run_stages(context)
            if is_whole:  # What a dry run leaves out must not take the place of a finished run.
                _write_run(context)
        except BaseException as error:
            killed = isinstance(error, KeyboardInterrupt)
            tracker.finish(context, "KILLED" if killed else "FAILED", str(error))
            raise
        tracker.finish(context, "FINISHED")
    if is_whole:
        say(closing_summary(context, tracker.shown_uri))
    return context


def capture_ahead(settings: Settings) -> Context:
    """Run the stages up to capture, for all the runs that will then find them done."""
    with _opened(settings) as context:
        _run_stages(context, last=capture.STAGE)
    return context


@contextmanager
def _opened(settings: Settings) -> Iterator[Context]:
    """What the stages of a run share, while it holds its output folder."""
    with ExitStack() as opened:
        store = opened.enter_context(opened_store(settings.out, settings.local))
        pool = SubjectPool(settings.subject, settings.cluster)
        servers = ServerPool(settings.simulate, store.local / "servers")

        @cache
        def start_cluster() -> None:
            opened.enter_context(cluster(settings.cluster))
            opened.callback(pool.close)
            opened.callback(servers.close)

        context = Context(settings, store, pool, start_cluster, servers=servers)
        yield context


def _run_stages(context: Context, last: Stage | None = None) -> bool:
    """Run all stages, or up to the `last`, or those before a dry run; whether it was all."""
    for stage in STAGES:
        if stage is explain.STAGE and context.settings.explain.is_dry_run:
            dry_run(context, explain.asking)
            return False
        if stage is simulate.STAGE and context.settings.simulate.dry_run:
            dry_run(context, partial(simulate.asking, is_rehearsal=True))
            return False
        run_stage(stage, context)
        if stage is samples.STAGE:
            samples.check_samples(context)
        if stage is describe.STAGE:
            describe.check_descriptions(context)
        if stage is capture.STAGE:
            context.pool.close()  # The later stages need no subject, and its cores.
        if stage is simulate.STAGE and context.servers is not None:
            context.servers.close()
        if stage is last:
            return False
    return True


def _write_run(context: Context) -> None:
    context.store.write_run(
        context.manifests(),
        seconds={name: round(value, 3) for name, value in context.seconds.items()},
        nodes=context.nodes,
        already_done=context.skipped,
        subject=Path(context.settings.subject.model).name,
        dataset=context.settings.data.source.title,
    )


def _end(status: int, message: str) -> NoReturn:
    say(f"neuron-atlas: {message}")
    sys.exit(status)


if __name__ == "__main__":
    main()
