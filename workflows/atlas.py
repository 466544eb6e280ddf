"""The entry point: a Hydra config in, the stages in order, an atlas out."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from neuron_atlas.workflows.cluster.progress import say
from neuron_atlas.workflows.cluster.signals import stop_on_signals
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
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import WrongCall
from neuron_atlas.workflows.run.exit_status import outcome
from neuron_atlas.workflows.run.output import opened_store
from neuron_atlas.workflows.run.runner import Runner
from neuron_atlas.workflows.run.stage import Stage
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

BEFORE_EXPLAINING = (
    samples.STAGE,
    describe.STAGE,
    capture.STAGE,
    classify.STAGE,
    analyse.STAGE,
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
    # Errors end the program here: Hydra would print its own account of them.
    try:
        run_atlas(plain_config(config))
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ending takes Ray a moment.
        _end(*outcome(error))


def run_atlas(config: Mapping[str, Any], part_of: PartOf | None = None) -> Context:
    """Run all stages for a plain config, and log the run. Raises WrongCall or RunFailed.

    part_of: the sweep that the run is a job of.
    """
    settings = read_settings(config)
    with opened_store(settings.out, settings.local) as store:
        context = Context(settings, store)
        tracker = Tracker(settings, store.local, config, part_of)
        stages = stages_of(settings)
        try:
            with Runner(context, stages, tracker.log_live) as runner:
                for stage in stages:
                    runner.run(stage)
                is_whole = runner.finish()
            if is_whole:  # A dry run must not take the place of a finished run.
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
    stages = BEFORE_EXPLAINING[: BEFORE_EXPLAINING.index(capture.STAGE) + 1]
    with opened_store(settings.out, settings.local) as store:
        context = Context(settings, store)
        with Runner(context, stages, lambda metrics, step: None) as runner:
            for stage in stages:
                runner.run(stage)
    return context


def stages_of(settings: Settings) -> tuple[Stage, ...]:
    """Return the stages of a run, in order. A dry run ends with the stage that it estimates."""
    explainers = settings.explain.each
    several = len(explainers) > 1
    is_dry_run = settings.explain.is_dry_run
    explaining = [
        explain.stage_of(one, is_one_of_several=several, is_dry_run=is_dry_run)
        for one in explainers
    ]
    simulating = [
        simulate.stage_of(name, is_one_of_several=several, is_dry_run=settings.simulate.dry_run)
        for name in settings.explain.names
    ]
    scoring = [score.stage_of(name, is_one_of_several=several) for name in settings.explain.names]
    if is_dry_run:
        return (*BEFORE_EXPLAINING, *explaining)
    if settings.simulate.dry_run:
        return (*BEFORE_EXPLAINING, *explaining, *simulating)
    return (*BEFORE_EXPLAINING, *explaining, *simulating, *scoring, report.STAGE)


def _write_run(context: Context) -> None:
    stats = context.stats
    context.store.write_run(
        list(context.done.values()),
        seconds={name: round(value, 3) for name, value in stats.seconds.items()},
        nodes=stats.nodes,
        already_done=stats.skipped,
        subject=Path(context.settings.subject.model).name,
        dataset=context.settings.data.source.title,
    )


def _end(status: int, message: str) -> NoReturn:
    say(f"neuron-atlas: {message}")
    sys.exit(status)


if __name__ == "__main__":
    main()
