"""Work for Ray's processes, which import it by name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import ray

from neuron_atlas.tasks.artifacts.full_disk import DiskFullError
from neuron_atlas.workflows.cluster.actor_pool import Count, Placement


class TheirOwn(Exception):
    """An exception of the work."""


@ray.remote(num_cpus=0.1, max_retries=0)
def double(number: int) -> int:
    return 2 * number


@ray.remote(num_cpus=0.1, max_retries=0)
def fail(number: int) -> int:
    raise TheirOwn(f"at {number}")


@ray.remote(num_cpus=0, max_retries=0)
def find_no_room() -> None:
    raise DiskFullError("the disk is full")


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
    units: int = 4
    seconds: float = 0.0


def hold(placement: Placement) -> str:
    """What an actor holds: the process that loaded it, and where it was placed."""
    return f"{os.getpid()} {placement.device} {placement.threads} {placement.n_processes}"


def hold_and_count(folder: str, placement: Placement) -> str:
    with open(f"{folder}/loaded-{os.getpid()}", "a", encoding="utf-8") as file:
        file.write("x")
    return folder


def hold_slowly(placement: Placement) -> str:
    time.sleep(1.5)
    return hold(placement)


def write(folder: str, loaded: str, item: Item, count: Count) -> str:
    with open(f"{folder}/{item.number}-{os.getpid()}", "w", encoding="utf-8"):
        time.sleep(item.seconds)
    count(item.units)
    return loaded


def count_slowly(folder: str, loaded: str, item: Item, count: Count) -> None:
    for _ in range(item.units):
        time.sleep(item.seconds)
        count(1)


def write_after_counting(folder: str, loaded: str, item: Item, count: Count) -> None:
    count(1)
    time.sleep(2.0)
    write(folder, loaded, item, count)


def hold_folder(folder: str, placement: Placement) -> str:
    return folder


def mark_ended(folder: str) -> None:
    open(f"{folder}/ended", "w", encoding="utf-8").close()


def work_until_ended(folder: str, item: Item, count: Count) -> None:
    count(1)
    while not os.path.exists(f"{folder}/ended"):
        time.sleep(0.05)
    open(f"{folder}/{item.number} stopped", "w", encoding="utf-8").close()


def raise_an_error(folder: str, loaded: str, item: Item, count: Count) -> None:
    raise TheirOwn(f"at {item.number}")


def freeze_once(folder: str, loaded: str, item: Item, count: Count) -> None:
    """The first process stops answering, as if its node were gone."""
    try:
        open(f"{folder}/frozen-{os.getpid()}", "x", encoding="utf-8").close()
        is_first = len([name for name in os.listdir(folder) if "frozen" in name]) == 1
    except FileExistsError:
        is_first = False
    if is_first:
        os.kill(os.getpid(), signal.SIGSTOP)
    write(folder, loaded, item, count)


def die_once(folder: str, loaded: str, item: Item, count: Count) -> None:
    begun = len(os.listdir(folder))
    write(folder, loaded, item, count)
    if begun == 2:
        os.kill(os.getpid(), signal.SIGKILL)
