"""The entry point: a Hydra config in, the stages in order, an atlas out."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig

from tasks.artifacts.full_disk import DiskFull
from tasks.llm.failures import Stopped, Unusable
from tasks.pretrained import ModelError
from tasks.samples.source import BadSample, SourceError
from workflows.cluster import cluster
from workflows.composition import (
    CONF,
    HYDRA_ERRORS,
    explain_hydra_error,
    plain_config,
    register_resolvers,
    side_by_side,
)
from workflows.dry_run import dry_run
from workflows.errors import RunFailed, WrongCall
from workflows.output import opened_store
from workflows.progress import say
from workflows.servers import ServerPool
from workflows.settings import read_settings
from workflows.stage import Context, run_stage
from workflows.stages import (
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
from workflows.stopping import stop_on_signals
from workflows.subject_pool import SubjectPool
from workflows.summary import closing_summary
from workflows.tracking import Tracker

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
    except (RunFailed, Stopped, DiskFull) as error:
        _end(1, str(error))
    except (WrongCall, ModelError, SourceError, Unusable) as error:
        _end(2, str(error))
    except BadSample as error:
        _end(1, f"an image that could be read before cannot be read now: {error.reason}")
    except Exception:
        traceback.print_exc()
        _end(1, "stopped by an error that was not foreseen; what was finished is kept")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ending takes Ray a moment.
        _end(130, "interrupted; what was finished is kept, and the same call goes on from there")


def run_atlas(config: Mapping[str, Any]) -> Context:
    """Run all stages for a plain config, and log the run. Raises WrongCall or RunFailed."""
    settings = read_settings(config)
    with ExitStack() as opened:
        store = opened.enter_context(opened_store(settings.out, settings.local))
        pool = SubjectPool(settings.subject, settings.cluster)
        servers = ServerPool(settings.simulate, store.local / "servers")

        def start_cluster() -> None:
            opened.enter_context(cluster(settings.cluster))
            opened.callback(pool.close)
            opened.callback(servers.close)

        context = Context(settings, store, pool, start_cluster, servers=servers)
        tracker = Tracker(settings, store.local, config)
        context.log_live = tracker.log_live
        try:
            is_whole = _run_stages(context)
        except BaseException as error:
            killed = isinstance(error, KeyboardInterrupt)
            tracker.finish(context, "KILLED" if killed else "FAILED", str(error))
            raise
        context.store.write_run(
            context.manifests(),
            seconds={name: round(value, 3) for name, value in context.seconds.items()},
            nodes=context.nodes,
            already_done=context.skipped,
            subject=Path(settings.subject.model).name,
            dataset=settings.data.source.title,
        )
        tracker.finish(context, "FINISHED")
    if is_whole:
        say(closing_summary(context, tracker.shown_uri))
    return context


def _run_stages(context: Context) -> bool:
    """Run all stages, or those before a dry run; whether it was all."""
    for stage in STAGES:
        if stage is explain.STAGE and any(one.dry_run for one in context.settings.explain.each):
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
    return True


def _end(status: int, message: str) -> NoReturn:
    say(f"neuron-atlas: {message}")
    sys.exit(status)


if __name__ == "__main__":
    main()
