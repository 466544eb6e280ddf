"""Work on the incomplete items of a step, on CPUs or on the actors that the step needs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.tasks.artifacts.location import existing_files
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.workflows.cluster.actor_pool import ActorPool
from neuron_atlas.workflows.cluster.cpu_tasks import run_on_cpus
from neuron_atlas.workflows.cluster.progress import Advance, print_line
from neuron_atlas.workflows.run.item_log import item_log
from neuron_atlas.workflows.run.stage import Item, Step, Work, Worker

_GC_THRESHOLDS = (50_000, 20, 20)
"""Of work on CPUs, which makes many small objects and hardly any cycles. With Python's thresholds,
looking for garbage takes up to a fifth of the time."""
_MAX_RETRIES = 20
"""Restarts of an item after its process or node died: in a run of days, nodes come and go."""
_Done = tuple[list[str], str]
"""Lines for the user, and the id of the node that did the work."""


def reopen_items(step: Step, items: Sequence[Item], folder: Path) -> None:
    """Remove the files of complete items that should be retried."""
    existing = existing_files(folder, {name for item in items for name in item.files})
    for item in items:
        if is_complete(item, existing) and step.should_retry(item, folder):
            for name in item.files:
                (folder / name).unlink()


def unfinished_items(items: Sequence[Item], folder: Path) -> list[Item]:
    """Return the incomplete items, in their order."""
    existing = existing_files(folder, {name for item in items for name in item.files})
    return [item for item in items if not is_complete(item, existing)]


def is_complete(item: Item, existing: set[str]) -> bool:
    """Return whether all files of an item exist. An item without files is never complete."""
    return bool(item.files) and existing.issuperset(item.files)


def chunks(items: Sequence[Item], size: int | None) -> Iterator[list[Item]]:
    """Split items into chunks of at least `size` units each; None makes one chunk."""
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if size is not None and sum(one.size for one in chunk) >= size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@dataclass(frozen=True)
class ItemRunner:
    """Runs the items of one step.

    name: the name of the work in Ray. folder: the stage's. logs: folder of the items' log files.
    advance: reports finished units. pool: the actors to run on, None for CPUs of any node. nodes:
    ids of the nodes that did work.
    """

    name: str
    work: Work
    folder: Path
    logs: Path
    advance: Advance
    pool: ActorPool | None = None
    nodes: set[str] = field(default_factory=set)

    def run(
        self,
        items: Sequence[Item],
        calls: Callable[[Item], CallOptions] = lambda item: CallOptions(),
        ending_s: float = 0.0,
    ) -> None:
        """Work on items, level by level. Raises what their work raises (see item_log).

        calls: returns the Calls of an item. ending_s: seconds to wait for items that are stopped.
        """
        for level in sorted({item.level for item in items}):
            some = [(item, calls(item)) for item in items if item.level == level]
            if self.pool is None:
                self._on_cpus(some, ending_s)
            else:
                self._on_actors(some, self.pool, ending_s > 0)

    def _on_cpus(self, pairs: Sequence[tuple[Item, CallOptions]], ending_s: float) -> None:
        def begin(pair: tuple[Item, CallOptions]) -> Any:
            name = f"{self.name}:{pair[0].key}"
            named = _on_a_cpu.options(name=name, max_retries=_MAX_RETRIES)
            return named.remote(self.work, self.folder, self.logs, *pair)

        shown: set[str] = set()
        for (item, _), (lines, node) in run_on_cpus(pairs, begin, ending_s):
            self.nodes.add(node)
            self.advance(item.size)
            _show(lines, shown)

    def _on_actors(
        self, pairs: Sequence[tuple[Item, CallOptions]], pool: ActorPool, has_calls: bool
    ) -> None:
        done = {item.key: 0 for item, _ in pairs}

        def advance_to(pair: tuple[Item, CallOptions], units: int) -> None:
            item, _ = pair
            reached = max(done[item.key], min(units, item.size))
            self.advance(reached - done[item.key])
            done[item.key] = reached

        on_actor = partial(_on_an_actor, self.work, self.folder, self.logs)
        shown: set[str] = set()
        # A model's answers are stored, so a signal may stop an item before it is complete.
        finished = pool.run(pairs, on_actor, advance_to, abandon_on_signal=has_calls)
        for pair, (lines, node) in finished:
            self.nodes.add(node)
            advance_to(pair, pair[0].size)
            _show(lines, shown)


def _show(lines: Sequence[str], shown: set[str]) -> None:
    for line in lines:
        if line not in shown:  # Many items may have the same warning.
            shown.add(line)
            print_line(line)


# Ray would fill one node before it uses the next; files are read faster by several.
@ray.remote(scheduling_strategy="SPREAD")
def _on_a_cpu(work: Work, folder: Path, logs: Path, item: Item, calls: CallOptions) -> _Done:
    gc.set_threshold(*_GC_THRESHOLDS)
    return _do(work, item, logs, Worker(folder, _paths(item, folder), calls=calls))


def _on_an_actor(
    work: Work,
    folder: Path,
    logs: Path,
    loaded: Any,
    pair: tuple[Item, CallOptions],
    count: Callable[[int], None],
) -> _Done:
    item, calls = pair
    return _do(work, item, logs, Worker(folder, _paths(item, folder), loaded, calls, count))


def _paths(item: Item, folder: Path) -> tuple[Path, ...]:
    return tuple(folder / name for name in item.files)


def _do(work: Work, item: Item, logs: Path, worker: Worker) -> _Done:
    with item_log(logs / f"{item.key}.log") as warnings:
        lines = list(work(worker, *item.inputs) or ())
    return [*lines, *warnings], ray.get_runtime_context().get_node_id()
