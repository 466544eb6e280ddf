"""Run stages: skip complete ones, spread the work of the other ones, and commit its results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.artifacts.location import remove_folder
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.workflows.cluster.actor_pool import ActorPool, ActorResource
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.cluster.progress import print_line, progress
from neuron_atlas.workflows.cluster.waiting import explained_wait
from neuron_atlas.workflows.models.calls import LogLive, ModelUse, OpenCalls, open_calls
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.dry_run import Estimate, closing_lines, dry_run
from neuron_atlas.workflows.run.failures import MAY_PASS_LATER
from neuron_atlas.workflows.run.items import ItemRunner, chunks, reopen_items, unfinished_items
from neuron_atlas.workflows.run.stage import Item, Stage, Step, tables_of
from neuron_atlas.workflows.run.store import Manifest, count_rows, fingerprint


class Runner:
    """Runs the stages of one run, in order, on one cluster. Use as a context manager.

    The cluster is started with the first stage that has work to do. A pool of actors is closed
    once no later stage needs it.
    """

    def __init__(self, context: Context, stages: Sequence[Stage], log_live: LogLive) -> None:
        self._context = context
        self._stages = stages
        self._log_live = log_live
        self._opened = ExitStack()
        self._has_cluster = False
        self._pools: dict[str, ActorPool] = {}
        self._calls: OpenCalls | None = None
        self._estimates: list[Estimate | None] = []
        self._nodes: set[str] = set()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        for pool in self._pools.values():
            pool.close()
        self._opened.close()

    def run(self, stage: Stage) -> None:
        """Run a stage unless it is complete with the same fingerprint.

        Only estimates a dry run. Raises the exceptions of its work.
        """
        if stage.is_dry_run:
            self._start_cluster()
            self._estimates.append(dry_run(stage, self._context))
            return
        # Called once: some read files or a dataset.
        with explained_wait(stage.name, "the dataset or the weights to be read"):
            parameters = stage.parameters(self._context)
        made_from = {name: self._context.identity(name, stage.explainer) for name in stage.reads}
        mark = fingerprint(stage.name, stage.version, parameters, made_from)
        manifest = self._find(stage, mark)
        if manifest is None:
            manifest = self._work_on(stage, mark, parameters, made_from)
        for name in stage.temporary:  # Also if an earlier run was killed after the commit.
            remove_folder(self._context.store.folder(stage.name, mark) / name)
        self._context.done[stage.key] = manifest
        stage.check(self._context)
        self._close_pools(stage, ())

    def finish(self) -> bool:
        """Print the sum of the dry runs. Return whether all stages ran, without a dry run."""
        for line in closing_lines(self._estimates):
            print_line(line)
        return not self._estimates

    def _find(self, stage: Stage, mark: str) -> Manifest | None:
        manifest = self._context.store.find(stage.name, mark)
        if manifest is None:
            return None
        if failures := manifest.about.get(MAY_PASS_LATER):
            print_line(
                f"{stage.title:<10} {failures:,} failures may have passed; trying them again"
            )
            self._context.store.reopen(manifest)
            return None
        selected = stage.select(self._context, manifest)
        if selected is not None:
            self._context.stats.skipped.append(stage.title)
            print_line(f"{stage.title:<10} already done ({mark[:8]})")
        return selected

    def _work_on(
        self, stage: Stage, mark: str, parameters: Mapping[str, Any], made_from: Mapping[str, str]
    ) -> Manifest:
        context = self._context
        folder = context.store.folder(stage.name, mark)
        if stage.title != stage.name:
            print_line(stage.title)
        stage.prepare(context)
        self._start_cluster()
        seconds: dict[str, float] = {}
        items: list[Item] = []
        with ExitStack() as opened:
            for number, step in enumerate(stage.steps):
                self._load_early(step, stage.steps[number + 1 :])
                with self._timed(step.name, seconds):
                    items += self._work_on_step(step, folder, context.store.logs(stage.key), opened)
                self._close_pools(stage, stage.steps[number + 1 :])
        checked = explained_wait(stage.name, "its tables to be checked")
        with self._timed(stage.name, seconds), checked:
            written = stage.finish(context, folder, tables_of(items))
        manifest = Manifest(
            stage=stage.name,
            version=stage.version,
            fingerprint=mark,
            parameters=parameters,
            made_from=made_from,
            files=written.files,
            rows=count_rows(folder, written.files),
            seconds={name: round(spent, 3) for name, spent in seconds.items()},
            content=written.content,
            about=written.about,
        )
        context.store.commit(manifest)
        selected = stage.select(context, manifest)
        assert selected is not None, f"{stage.name} did not write all selected artifacts"
        return selected

    def _work_on_step(
        self, step: Step, folder: Path, logs: Path, opened: ExitStack
    ) -> Sequence[Item]:
        """Work on a step until every item is complete; return the items. opened: closed at the end
        of the stage."""
        needs = step.needs(self._context)
        with explained_wait(step.name, "its work to be listed"):
            items = step.items(self._context, folder)
        reopen_items(step, items, folder)
        work = partial(self._work_on_items, step, needs.resource, items, folder, logs)
        if needs.model is None:
            work()
        elif needs.model.mode == "batch" and not step.is_live:
            account = self._open_calls(needs.model, opened)
            account.work_by_batch(folder / "spools", partial(work, account))
        elif unfinished_items(items, folder):
            account = self._open_calls(needs.model, opened)
            live = account.live_calls()
            work(account, calls=lambda item: live, ending_s=account.ending_s)
        return items

    def _open_calls(self, use: ModelUse, opened: ExitStack) -> OpenCalls:
        """Open the account once for all steps of a stage, so that their spending is summed."""
        if self._calls is None:
            self._calls = opened.enter_context(open_calls(use, self._context.store.local))
            opened.callback(setattr, self, "_calls", None)
        return self._calls

    def _work_on_items(
        self,
        step: Step,
        resource: ActorResource | None,
        items: Sequence[Item],
        folder: Path,
        logs: Path,
        account: OpenCalls | None = None,
        *,
        calls: Callable[[Item], CallOptions] = lambda item: CallOptions(),
        ending_s: float = 0.0,
        chunk_size: int | None = None,
        after_chunk: Callable[[], None] = lambda: None,
    ) -> None:
        """Work on the unfinished items, with a progress bar.

        account: its spending is shown. calls, ending_s: see ItemRunner.run. after_chunk: called
        after each chunk of about chunk_size units.
        """
        unfinished = unfinished_items(items, folder)
        if not unfinished:
            return
        total = sum(item.size for item in items)
        done = total - sum(item.size for item in unfinished)
        with ExitStack() as shown:
            advance = shown.enter_context(progress(step.name, total, step.unit, done))
            if account is not None:
                shown.enter_context(account.show_spending(advance, self._log_live))
            pool = None if resource is None else self._pool(resource)
            runner = ItemRunner(step.name, step.work, folder, logs, advance, pool)
            for some in chunks(unfinished, chunk_size):
                runner.run(some, calls, ending_s)
                after_chunk()
            self._nodes |= runner.nodes

    def _pool(self, resource: ActorResource) -> ActorPool:
        if resource.name not in self._pools:
            self._pools[resource.name] = ActorPool(resource, self._context.settings.cluster)
        return self._pools[resource.name]

    def _load_early(self, step: Step, later_steps: Sequence[Step]) -> None:
        """Load what later steps need in all actors of a pool, before a check runs on one."""
        resource = step.needs(self._context).resource
        if step.unit or resource is None or resource.name in self._pools:
            return
        later = [one.needs(self._context).resource for one in later_steps]
        if any(one is not None and one.name == resource.name for one in later):
            self._pool(resource).load()

    def _close_pools(self, stage: Stage, later_steps: Sequence[Step]) -> None:
        """Close the pools that no later step or stage needs.

        A pool that blocks the CPUs is also closed before a step that does not run on it, and starts
        again at the next step that does.
        """
        later = self._stages[self._stages.index(stage) + 1 :]
        steps = [*later_steps, *(step for one in later for step in one.steps)]
        holdings = [step.needs(self._context).resource for step in steps]
        names = [None if resource is None else resource.name for resource in holdings]
        for name, pool in list(self._pools.items()):
            if name not in names or (name != names[0] and pool.blocks_cpus):
                self._pools.pop(name).close()

    def _start_cluster(self) -> None:
        if not self._has_cluster:
            self._opened.enter_context(cluster(self._context.settings.cluster))
            self._has_cluster = True

    @contextmanager
    def _timed(self, name: str, seconds: dict[str, float]) -> Iterator[None]:
        """Add the elapsed time to `seconds` and the stats, and store the number of nodes."""
        stats = self._context.stats
        begun = time.monotonic()
        self._nodes.clear()
        yield
        spent = time.monotonic() - begun
        stats.nodes[name] = max(stats.nodes.get(name, 0), len(self._nodes))
        for totals in (stats.seconds, seconds):
            totals[name] = totals.get(name, 0.0) + spent
