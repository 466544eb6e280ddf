"""The entry point: compose a Hydra config, run the stages in order, write an atlas."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from neuron_atlas.tasks.subject.settings import source_of
from neuron_atlas.workflows.cluster.progress import (
    discard_unread_output,
    open_closed_streams,
    print_line,
)
from neuron_atlas.workflows.cluster.signals import cluster_is_gone, stop_on_signals
from neuron_atlas.workflows.config.composition import (
    CONF,
    HYDRA_ERRORS,
    expand_explainers,
    explain_hydra_error,
    plain_config,
    register_launcher,
    register_resolvers,
)
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.errors import ConfigError
from neuron_atlas.workflows.run.exit_status import exit_status_of
from neuron_atlas.workflows.run.neurons import image_cache
from neuron_atlas.workflows.run.output import opened_store
from neuron_atlas.workflows.run.runner import Runner
from neuron_atlas.workflows.run.stage import Stage
from neuron_atlas.workflows.run.summary import closing_summary
from neuron_atlas.workflows.stages import (
    analyse,
    capture,
    classify,
    describe,
    effects,
    evidence,
    explain,
    faithfulness,
    groups,
    image_clusters,
    meanings,
    near_misses,
    report,
    samples,
    sayings,
    score,
    search,
    simulate,
)
from neuron_atlas.workflows.tracking.address import check_server
from neuron_atlas.workflows.tracking.tracker import SweepMembership, Tracker

BEFORE_EXPLAINING = (
    samples.STAGE,
    describe.STAGE,
    image_clusters.STAGE,
    capture.STAGE,
    classify.STAGE,
    analyse.STAGE,
    search.STAGE,
    evidence.STAGE,
)


def main() -> None:
    """Run the console script. Exit status 0, 1 for a failed run, 2 for a wrong call, 130 if
    interrupted."""
    open_closed_streams()
    register_resolvers()
    register_launcher()
    # Makes Hydra raise its errors, which then become one line.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    stop_on_signals()
    try:
        sys.argv[1:] = expand_explainers(sys.argv[1:])
        _atlas()
    except BrokenPipeError:  # Nobody reads the help any more.
        pass
    except ConfigError as error:
        _end(2, str(error))
    except HYDRA_ERRORS as error:
        _end(2, str(explain_hydra_error(error, sys.argv[1:])))
    except (Exception, KeyboardInterrupt) as error:
        _end(*exit_status_of(error))
    finally:
        discard_unread_output()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="atlas")
def _atlas(config: DictConfig) -> None:
    # Errors end the program here, because Hydra would print its own message.
    try:
        run_atlas(plain_config(config))
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ray takes a moment to stop.
        _end(*exit_status_of(error))


def run_atlas(config: Mapping[str, Any], membership: SweepMembership | None = None) -> Context:
    """Run all stages for a plain config, and record the run in MLflow.

    membership: of the sweep that the run is a job of. Raises ConfigError, RunError, and errors of
    the models (ProviderError, ModelError, SubjectError).
    """
    settings = read_settings(config)
    check_server()
    with opened_store(settings.out, settings.local_dir) as store:
        context = Context(settings, store)
        tracker = Tracker(settings, store.local, config, membership)
        stages = stages_of(settings)
        try:
            with Runner(context, stages, tracker.log_live) as runner:
                for stage in stages:
                    runner.run(stage)
                is_complete = runner.finish()
            if is_complete:  # A dry run must not replace the manifest of a finished run.
                _write_run(context)
        except BaseException as error:
            is_killed = isinstance(error, KeyboardInterrupt)
            tracker.finish(context, "KILLED" if is_killed else "FAILED", str(error))
            raise
        finally:
            if samples.STAGE.key in context.done:
                image_cache(context).clear()
        tracker.finish(context, "FINISHED")
    if is_complete:
        print_line(closing_summary(context, tracker.where()))
    return context


def run_through_capture(settings: Settings) -> Context:
    """Run the stages up to capture, so that later runs skip them."""
    stages = BEFORE_EXPLAINING[: BEFORE_EXPLAINING.index(capture.STAGE) + 1]
    with opened_store(settings.out, settings.local_dir) as store:
        context = Context(settings, store)
        with Runner(context, stages, lambda metrics, step: None) as runner:
            for stage in stages:
                runner.run(stage)
    return context


def stages_of(settings: Settings) -> tuple[Stage, ...]:
    """Return the stages of a run, in order. A dry run ends with the stage that it estimates."""
    explainers = settings.explain.each_explainer
    is_one_of_several = len(explainers) > 1
    is_dry_run = settings.explain.is_dry_run
    explaining = [
        explain.make_stage(one, is_one_of_several=is_one_of_several, is_dry_run=is_dry_run)
        for one in explainers
    ]
    telling_apart = [
        explain.make_meanings_stage(one, is_one_of_several=is_one_of_several, is_dry_run=is_dry_run)
        for one in explainers
        if one.meanings == "auto"
    ]
    finding = [
        near_misses.make_stage(
            one.explainer.name,
            is_one_of_several=is_one_of_several,
            uses_clusters=one.explainer.uses_background,
        )
        for one in explainers
    ]
    measuring = [effects.STAGE] if settings.effects.run else []
    trusting = [
        faithfulness.make_stage(name, is_one_of_several=is_one_of_several)
        for name in settings.explain.names
        if settings.effects.run
    ]
    simulating = [
        simulate.make_stage(
            one.explainer.name,
            is_one_of_several=is_one_of_several,
            is_dry_run=settings.simulate.dry_run,
            uses_clusters=one.explainer.uses_background,
        )
        for one in explainers
    ]
    scoring = [
        score.make_stage(name, is_one_of_several=is_one_of_several)
        for name in settings.explain.names
    ]
    scoring_meanings = [
        meanings.make_stage(
            one.explainer.name,
            is_one_of_several=is_one_of_several,
            is_dry_run=settings.simulate.dry_run,
            uses_clusters=one.explainer.uses_background,
        )
        for one in explainers
        if one.meanings == "auto"
    ]
    explaining += telling_apart
    if is_dry_run:
        return (*BEFORE_EXPLAINING, *explaining)
    if settings.simulate.dry_run:
        return (*BEFORE_EXPLAINING, *explaining, *finding, *simulating, *scoring_meanings)
    changing = [groups.STAGE] if settings.groups.samples else []
    clamping = [sayings.STAGE] if settings.steering.neurons_per_type else []
    return (
        *BEFORE_EXPLAINING,
        *explaining,
        *measuring,
        *trusting,
        *changing,
        *finding,
        *simulating,
        *scoring,
        *scoring_meanings,
        *clamping,
        report.STAGE,
    )


def _write_run(context: Context) -> None:
    stats = context.stats
    context.store.write_run(
        list(context.done.values()),
        seconds={name: round(value, 3) for name, value in stats.seconds.items()},
        nodes=stats.nodes,
        already_done=stats.skipped,
        subject=Path(context.settings.subject.model).name,
        dataset=context.settings.data.source.title,
        subject_source=source_of(context.settings.subject) | _sae_source(context.settings),
    )


def _sae_source(settings: Settings) -> dict[str, str | None]:
    path = settings.capture.sae.path
    return {} if path is None else {"sae": str(Path(path).expanduser().resolve())}


def _end(status: int, message: str) -> NoReturn:
    print_line(f"neuron-atlas: {message}")
    if cluster_is_gone():  # Ray's own clean-up would wait for it, and end with another status.
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    main()
