"""Work on the items of a step: those that are not complete, wherever the step needs to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray

from neuron_atlas.tasks.artifacts.location import present
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.workflows.cluster.actor_pool import ActorPool
from neuron_atlas.workflows.cluster.progress import Advance, say
from neuron_atlas.workflows.cluster.spread import spread
from neuron_atlas.workflows.run.item_log import item_log
from neuron_atlas.workflows.run.stage import Item, Step, Work, Worker

_MAX_RETRIES = 20
"""Times that an item is begun again after its process or its node died: machines come and go in a
run of days."""
_Done = tuple[list[str], str]
"""Lines for the user, and the node that the work was done on."""


def reopen_items(step: Step, items: Sequence[Item], folder: Path) -> None:
    """Remove the files of complete items that are to be done again."""
    there = present(folder, {name for item in items for name in item.files})
    for item in items:
        if is_complete(item, there) and step.should_retry(item, folder):
            for name in item.files:
                (folder / name).unlink()


def unfinished_items(items: Sequence[Item], folder: Path) -> list[Item]:
    """Return the items to work on, in their order."""
    there = present(folder, {name for item in items for name in item.files})
    return [item for item in items if not is_complete(item, there)]


def is_complete(item: Item, there: set[str]) -> bool:
    """Whether all files of an item are `there`. An item that leaves none is never complete."""
    return bool(item.files) and there.issuperset(item.files)


def chunks(items: Sequence[Item], size: int | None) -> Iterator[list[Item]]:
    """Cut items into runs of at least `size` units each; None keeps them together."""
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
    """Where and how the items of one step are worked on.

    name: what Ray calls the work. folder: the stage's. logs: the folder of the items' log files.
    pool: the actors they run on, None for CPUs of any node. nodes: of the cluster that worked.
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
        calls: Callable[[Item], Calls] = lambda item: Calls(),
        ending_s: float = 0.0,
    ) -> None:
        """Work on items, level by level. Raises what their work raises (see item_log).

        calls: the way to a model, for each item. ending_s: how long items that are stopped are
        waited for.
        """
        for level in sorted({item.level for item in items}):
            some = [(item, calls(item)) for item in items if item.level == level]
            if self.pool is None:
                self._on_cpus(some, ending_s)
            else:
                self._on_actors(some, self.pool, ending_s > 0)

    def _on_cpus(self, asked: Sequence[tuple[Item, Calls]], ending_s: float) -> None:
        def begin(pair: tuple[Item, Calls]) -> Any:
            name = f"{self.name}:{pair[0].key}"
            named = _on_a_cpu.options(name=name, max_retries=_MAX_RETRIES)
            return named.remote(self.work, self.folder, self.logs, *pair)

        shown: set[str] = set()
        for (item, _), (lines, node) in spread(asked, begin, ending_s):
            self.nodes.add(node)
            self.advance(item.size)
            _show(lines, shown)

    def _on_actors(
        self, asked: Sequence[tuple[Item, Calls]], pool: ActorPool, has_calls: bool
    ) -> None:
        done = {item.key: 0 for item, _ in asked}

        def advance_to(pair: tuple[Item, Calls], units: int) -> None:
            item, _ = pair
            reached = max(done[item.key], min(units, item.size))
            self.advance(reached - done[item.key])
            done[item.key] = reached

        on_actor = partial(_on_an_actor, self.work, self.folder, self.logs)
        shown: set[str] = set()
        # What a model has answered is stored, so a signal may end an item before it is complete.
        finished = pool.run(asked, on_actor, advance_to, abandon_on_signal=has_calls)
        for pair, (lines, node) in finished:
            self.nodes.add(node)
            advance_to(pair, pair[0].size)
            _show(lines, shown)


def _show(lines: Sequence[str], shown: set[str]) -> None:
    for line in lines:
        if line not in shown:  # Many items may have the same warning.
            shown.add(line)
            say(line)


# Ray would fill one node before it uses the next; files are read faster by several.
@ray.remote(scheduling_strategy="SPREAD")
def _on_a_cpu(work: Work, folder: Path, logs: Path, item: Item, calls: Calls) -> _Done:
    return _do(work, item, logs, Worker(folder, _paths(item, folder), calls=calls))


def _on_an_actor(
    work: Work,
    folder: Path,
    logs: Path,
    held: Any,
    asked: tuple[Item, Calls],
    count: Callable[[int], None],
) -> _Done:
    item, calls = asked
    return _do(work, item, logs, Worker(folder, _paths(item, folder), held, calls, count))


def _paths(item: Item, folder: Path) -> tuple[Path, ...]:
    return tuple(folder / name for name in item.files)


def _do(work: Work, item: Item, logs: Path, worker: Worker) -> _Done:
    with item_log(logs / f"{item.key}.log") as warnings:
        lines = list(work(worker, *item.inputs) or ())
    return [*lines, *warnings], ray.get_runtime_context().get_node_id()
