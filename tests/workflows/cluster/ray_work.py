"""Work for Ray's processes, which import it by name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import ray

from neuron_atlas.tasks.artifacts.full_disk import DiskFull
from neuron_atlas.tasks.subject.settings import SubjectSettings
from neuron_atlas.workflows.cluster.nodes_used import task
from neuron_atlas.workflows.cluster.subject_pool import Extent


class TheirOwn(Exception):
    """An exception of the work."""


@ray.remote(num_cpus=0.1, max_retries=0)
def double(number: int) -> int:
    return 2 * number


@task()
def on_a_node(number: int) -> int:
    return number * number


@ray.remote(num_cpus=0.1, max_retries=0)
def fail(number: int) -> int:
    raise TheirOwn(f"at {number}")


@ray.remote(num_cpus=0, max_retries=0)
def find_no_room() -> None:
    raise DiskFull("the disk is full")


@ray.remote(num_cpus=0.1, max_retries=0)
def ask_another(number: int) -> None:
    ray.get(find_no_room.remote())


@ray.remote(num_cpus=0.1, max_retries=0)
def die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@ray.remote(num_cpus=1)
def occupy(seconds: float) -> None:
    time.sleep(seconds)


@ray.remote(num_cpus=0.1, max_retries=0)
def end_slowly(folder: str, number: int) -> None:
    open(f"{folder}/{number} begun", "w", encoding="utf-8").close()
    try:
        while True:
            time.sleep(0.05)
    finally:
        time.sleep(0.5)
        open(f"{folder}/{number} ended", "w", encoding="utf-8").close()


@ray.remote(num_cpus=0.1, max_retries=0)
def fail_once(folder: str, others: int) -> None:
    while len(os.listdir(folder)) < others:
        time.sleep(0.01)
    raise TheirOwn("at once")


@dataclass(frozen=True)
class Item:
    number: int
    samples: int = 4
    seconds: float = 0.0


class Worker:
    """In the place of the subject's actor: counts what it is given."""

    def __init__(self, settings: SubjectSettings, threads: int, sharers: int) -> None:
        self._done = 0

    def check(self, layers: tuple[int, ...]) -> Extent:
        return Extent(layers, 1, 4)

    def samples_done(self) -> int:
        return self._done

    def work(self, item: Item, folder: str) -> None:
        with open(f"{folder}/{item.number}-{os.getpid()}", "w", encoding="utf-8"):
            time.sleep(item.seconds)
        self._done = item.samples

    def tell(self, item: Item, folder: str) -> list[str]:
        return [f"something of {item.number}"]

    def fail(self, item: Item, folder: str) -> None:
        raise TheirOwn(f"at {item.number}")

    def freeze_once(self, item: Item, folder: str) -> None:
        """The first is not heard of any more, as if its node were gone."""
        try:
            open(f"{folder}/frozen-{os.getpid()}", "x", encoding="utf-8").close()
            is_first = len([name for name in os.listdir(folder) if "frozen" in name]) == 1
        except FileExistsError:
            is_first = False
        if is_first:
            os.kill(os.getpid(), signal.SIGSTOP)
        self.work(item, folder)

    def die_once(self, item: Item, folder: str) -> None:
        begun = len(os.listdir(folder))
        self.work(item, folder)
        if begun == 2:
            os.kill(os.getpid(), signal.SIGKILL)
