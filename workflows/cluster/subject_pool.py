"""Long-lived actors that each hold the subject, and pull work until there is none."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray

from neuron_atlas.tasks.capture.shard_plan import ShardPlan
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings
from neuron_atlas.workflows.cluster.nodes_used import Done, done_here
from neuron_atlas.workflows.cluster.progress import Advance, say
from neuron_atlas.workflows.cluster.signals import finishing
from neuron_atlas.workflows.cluster.spread import actor_count, result
from neuron_atlas.workflows.config.settings import ClusterSettings

Item = TypeVar("Item")

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BEFORE_SAYING = 60.0
_SECONDS_UNHEARD = 30.0


@dataclass(frozen=True)
class Extent:
    """What is captured of a subject: its layers, ascending, and the neurons of each; and how many
    layers it has in all."""

    layers: tuple[int, ...]
    neurons_per_layer: int
    layers_in_all: int


class SubjectActor:
    """One copy of the subject on one device.

    Methods import what needs torch when they are called, so that a driver never does.
    """

    def __init__(self, settings: SubjectSettings, threads: int, sharers: int) -> None:
        self._settings = settings
        self._threads = threads
        self._sharers = sharers
        self._subject: Any = None
        self._samples_done = 0

    def check(self, layers: Sequence[int] | None) -> Extent:
        """Load the subject; what is to be captured of it. Raises SubjectError.

        layers: decoder layers, None for all.
        """
        from neuron_atlas.tasks.subject.hook_points import (
            check_layers,
            decoder_layers,
            neurons_per_layer,
        )

        subject = self._loaded()
        in_all = len(decoder_layers(subject))
        chosen = tuple(range(in_all) if layers is None else sorted(layers))
        check_layers(subject, chosen)
        return Extent(chosen, neurons_per_layer(subject), in_all)

    def describe(
        self, samples: Path, source: Source, settings: DescribeSettings, written: Path
    ) -> Done:
        """Describe the usable samples of one `samples` file into a `descriptions` file."""
        from neuron_atlas.tasks.subject.describe import describe_part

        self._samples_done = 0
        describe_part(self._loaded(), samples, source, settings, written, self._count)
        return done_here(())

    def memory_plan(self, shard: ShardPlan) -> str:
        """Where the capture of a shard keeps what, in words. Raises SubjectError."""
        from neuron_atlas.tasks.capture.demand import memory_plan

        return str(memory_plan(self._loaded(), shard, self._sharers))

    def capture(
        self,
        plan: ShardPlan,
        samples: Sequence[Path],
        descriptions: Sequence[Path],
        source: Source,
        folder: Path,
    ) -> Done:
        """Capture one shard into `folder`; what there is to say of it."""
        from neuron_atlas.tasks.capture.shard import capture_shard
        from neuron_atlas.tasks.samples.catalog import open_catalog

        self._samples_done = 0
        catalog = open_catalog(samples, descriptions, sample_ids=plan.sample_ids, source=source)
        with _warnings_of("neuron_atlas.tasks.capture") as said:
            capture_shard(self._loaded(), plan, catalog, folder, self._sharers, self._count)
        return done_here(said)

    def samples_done(self) -> int:
        """Samples of the current item that are done."""
        return self._samples_done

    def _count(self, samples: int) -> None:
        self._samples_done += samples

    def _loaded(self) -> Any:
        # Loaded on first use, so a restarted actor loads again, and an error reaches the caller.
        if self._subject is None:
            from neuron_atlas.tasks.subject.load import load_subject

            gpus = len(ray.get_gpu_ids())
            device = ("cpu", "cuda")[gpus] if gpus < 2 else "auto"
            self._subject = load_subject(self._settings, device, self._threads)
        return self._subject


@contextmanager
def _warnings_of(logger: str) -> Iterator[list[str]]:
    """The warnings that a part of the program logs meanwhile, each once."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() not in lines:
                lines.append(record.getMessage())

    keep = Keep(logging.WARNING)
    logging.getLogger(logger).addHandler(keep)
    try:
        yield lines
    finally:
        logging.getLogger(logger).removeHandler(keep)


# Two threads: one works while the other answers how far it is.
_RemoteSubject: Any = ray.remote(max_restarts=-1, max_task_retries=3, max_concurrency=2)(
    SubjectActor
)


class SubjectPool:
    """The subject's actors, started when first needed."""

    def __init__(self, subject: SubjectSettings, cluster: ClusterSettings) -> None:
        self._subject = subject
        self._cluster = cluster
        self._actors: list[Any] = []
        self._new_actor: Callable[[], Any]

    def check(self, layers: Sequence[int] | None) -> Extent:
        """See SubjectActor.check."""
        return result(self._first_free().check.remote(layers))

    def memory_plan(self, shard: ShardPlan) -> str:
        """See SubjectActor.memory_plan."""
        return result(self._first_free().memory_plan.remote(shard))

    def each(
        self,
        items: Sequence[Item],
        call: Callable[[Any, Item], ray.ObjectRef],
        samples: Callable[[Item], int],
        advance: Advance,
    ) -> None:
        """Run `call(actor, item)` for every item, one at a time on each actor.

        `advance` is told of samples as they are done, within items too. What a call returns are
        lines for the user. Items go to actors that have started, so one that finds no room in the
        cluster holds up nothing, and neither does one that is not heard of for long: its item is
        given to an actor that has none.
        """
        waiting = deque(items)
        if not waiting:
            return
        starting = {actor.samples_done.remote(): actor for actor in self._started()}
        working: dict[ray.ObjectRef, tuple[Any, Item]] = {}
        idle: list[Any] = []
        heard: dict[ray.ObjectRef, float] = {}
        told = dict.fromkeys(items, 0)

        def start(actor: Any) -> None:
            if not waiting or is_stopping():
                idle.append(actor)
                return
            item = waiting.popleft()
            reference = call(actor, item)
            working[reference] = (actor, item)
            heard[reference] = time.monotonic()

        def tell(item: Item, done: int) -> None:
            advance(max(0, done - told[item]))
            told[item] = max(done, told[item])

        with finishing() as is_stopping:
            while (waiting and not is_stopping()) or working:
                ready, _ = ray.wait([*working, *starting], timeout=_SECONDS_BETWEEN_LOOKS)
                for reference in ready:
                    value = result(reference)
                    if reference in starting:
                        start(starting.pop(reference))
                        continue
                    for line in value or ():
                        say(line)
                    actor, item = working.pop(reference)
                    tell(item, samples(item))
                    start(actor)
                for reference, done in _peek(working).items():
                    item = working[reference][1]
                    tell(item, min(done, samples(item)))
                    heard[reference] = time.monotonic()
                # Of an actor whose node died, and that waits for a place which the others hold.
                for reference in _unheard(working, heard)[: len(idle)]:
                    actor, item = working.pop(reference)
                    fresh = self._replace(actor)
                    starting[fresh.samples_done.remote()] = fresh
                    waiting.append(item)
                    start(idle.pop())

    def close(self) -> None:
        """Give the actors' devices back."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _first_free(self) -> Any:
        """An actor that runs. Says so while it waits for a place in the cluster."""
        starting = [actor.samples_done.remote() for actor in self._started()]
        while not (ready := ray.wait(starting, timeout=_SECONDS_BEFORE_SAYING)[0]):
            say("subject    waits for a GPU or CPU of the cluster to be free")
        return self._actors[starting.index(ready[0])]

    def _started(self) -> list[Any]:
        if not self._actors:
            count, resources = actor_count(self._cluster)
            machines = sum(1 for node in ray.nodes() if node["Alive"])
            sharers = -(-count // machines)

            def new_actor() -> Any:
                made = _RemoteSubject.options(**resources)
                return made.remote(self._subject, self._cluster.threads, sharers)

            self._new_actor = new_actor
            self._actors = [new_actor() for _ in range(count)]
        return self._actors

    def _replace(self, lost: Any) -> Any:
        """Another actor in the place of one, which does no more work."""
        ray.kill(lost)
        fresh = self._new_actor()
        self._actors[self._actors.index(lost)] = fresh
        return fresh


def _unheard(
    working: Mapping[ray.ObjectRef, object], heard: Mapping[ray.ObjectRef, float]
) -> list[ray.ObjectRef]:
    now = time.monotonic()
    return [one for one in working if now - heard[one] > _SECONDS_UNHEARD]


def _peek(working: Mapping[ray.ObjectRef, tuple[Any, Any]]) -> dict[ray.ObjectRef, int]:
    """How far the items under way are; without those whose actor cannot say just now."""
    asked = {actor.samples_done.remote(): item for item, (actor, _) in working.items()}
    if not asked:
        return {}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS_BETWEEN_LOOKS)
    done = {}
    for reference in answered:
        with suppress(ray.exceptions.RayError):
            done[asked[reference]] = ray.get(reference)
    return done
