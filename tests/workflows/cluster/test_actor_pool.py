"""Actors that hold something large pull items until there are none, whatever becomes of some."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from neuron_atlas.workflows.cluster import actor_pool, waiting
from neuron_atlas.workflows.cluster.actor_pool import ActorPool, ActorResource, actor_count
from neuron_atlas.workflows.cluster.signals import stop_on_signals
from neuron_atlas.workflows.config.settings import ClusterSettings
from tests.waiting import wait_until
from tests.workflows.cluster.ray_work import (
    Item,
    TheirOwn,
    count_slowly,
    die_once,
    freeze_once,
    hold,
    hold_and_count,
    hold_folder,
    hold_slowly,
    mark_ended,
    occupy,
    raise_an_error,
    work_until_ended,
    write,
    write_after_counting,
)

OpenPool = Callable[[int], ActorPool]


@pytest.mark.parametrize(
    ("resources", "settings", "gpus", "expected"),
    [
        ({"CPU": 8.0}, ClusterSettings("host:1"), 1, (8, {"num_cpus": 1})),
        ({"CPU": 8.0}, ClusterSettings("host:1", threads_per_actor=3), 1, (2, {"num_cpus": 3})),
        ({"CPU": 2.0}, ClusterSettings("host:1", threads_per_actor=4), 1, (1, {"num_cpus": 2})),
        ({"CPU": 8.0}, ClusterSettings("host:1", actors=3), 1, (3, {"num_cpus": 1})),
        ({"CPU": 8.0}, ClusterSettings(threads_per_actor=3), 1, (2, {"num_cpus": 0})),
        ({"CPU": 8.0, "GPU": 2.0}, ClusterSettings(), 1, (2, {"num_gpus": 1, "num_cpus": 1})),
        ({"CPU": 8.0, "GPU": 4.0}, ClusterSettings(), 2, (2, {"num_gpus": 2, "num_cpus": 1})),
        (
            {"CPU": 8.0, "GPU": 2.0},
            ClusterSettings(actors=1),
            1,
            (1, {"num_gpus": 1, "num_cpus": 1}),
        ),
    ],
)
def test_there_is_an_actor_on_each_gpu_or_else_on_each_core(
    monkeypatch, resources, settings, gpus, expected
):
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert actor_count(settings, gpus) == expected


@pytest.mark.parametrize(
    ("options", "actors", "blocks"),
    [
        ({"num_cpus": 0}, 8, False),
        ({"num_cpus": 1}, 4, False),
        ({"num_cpus": 1}, 5, True),
        ({"num_cpus": 4}, 2, True),
        ({"num_gpus": 1, "num_cpus": 1}, 4, False),
        ({"num_gpus": 1, "num_cpus": 1}, 8, True),
    ],
)
def test_actors_block_the_cpus_if_they_take_more_than_half_of_them(
    monkeypatch, options, actors, blocks
):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 8.0})
    pool = ActorPool(ActorResource("subject", hold), ClusterSettings())
    monkeypatch.setattr(pool, "_options", options)
    monkeypatch.setattr(pool, "_actors", [object()] * actors)
    assert pool.blocks_cpus == blocks


@pytest.fixture
def pool_of(ray_of_two_cores: None) -> Iterator[OpenPool]:
    opened: list[ActorPool] = []

    def open_pool(actors: int) -> ActorPool:
        opened.append(ActorPool(ActorResource("subject", hold), ClusterSettings(actors=actors)))
        return opened[-1]

    yield open_pool
    for pool in opened:
        pool.close()


def run(
    pool: ActorPool, items: list[Item], folder: Path, work: Callable[..., Any] = write
) -> list[tuple[Item, Any]]:
    return list(pool.run(items, partial(work, str(folder)), lambda item, units: None))


def numbers(folder: Path) -> list[int]:
    names = [path.name for path in folder.iterdir() if "frozen" not in path.name]
    return sorted({int(name.split("-")[0]) for name in names})


def test_every_item_is_done_once_and_comes_with_its_result(pool_of, tmp_path):
    items = [Item(number) for number in range(9)]
    done = run(pool_of(2), items, tmp_path)
    assert sorted(item.number for item, _ in done) == list(range(9))
    assert numbers(tmp_path) == list(range(9))


def test_an_actor_loads_what_it_holds_once_and_is_told_its_place(pool_of, tmp_path):
    pool = pool_of(1)
    held = {value for _, value in run(pool, [Item(0), Item(1)], tmp_path)}
    held |= {value for _, value in run(pool, [Item(2)], tmp_path)}
    (one,) = held
    assert one.split()[1:] == ["cpu", "1", "1"]


def test_all_actors_load_early_and_once(ray_of_two_cores, tmp_path):
    (loads := tmp_path / "loads").mkdir()
    (work := tmp_path / "work").mkdir()
    resource = ActorResource("subject", partial(hold_and_count, str(loads)))
    pool = ActorPool(resource, ClusterSettings(actors=2))
    pool.load()
    wait_until(lambda: len(list(loads.iterdir())) == 2)
    run(pool, [Item(number, seconds=0.1) for number in range(6)], work)
    pool.close()
    assert [path.read_text(encoding="utf-8") for path in loads.iterdir()] == ["x", "x"]
    assert numbers(work) == list(range(6))


def test_all_actors_work(pool_of, tmp_path):
    run(pool_of(2), [Item(number, seconds=0.3) for number in range(12)], tmp_path)
    assert len({path.name.split("-")[1] for path in tmp_path.iterdir()}) == 2


def test_progress_within_an_item_is_reported(pool_of, tmp_path):
    seen: list[int] = []
    work = partial(count_slowly, str(tmp_path))
    pool = pool_of(1)
    list(pool.run([Item(0, 8, 0.4)], work, lambda item, units: seen.append(units)))
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert max(seen) <= 8


def test_without_items_no_actor_is_started(pool_of, tmp_path, monkeypatch):
    monkeypatch.setattr(actor_pool, "_RemoteActor", None)
    assert run(pool_of(2), [], tmp_path) == []


def test_an_actor_for_which_there_is_no_room_holds_up_nothing(pool_of, tmp_path):
    run(pool_of(5), [Item(number) for number in range(6)], tmp_path)
    assert numbers(tmp_path) == list(range(6))


def test_waiting_for_a_place_in_the_cluster_is_said(pool_of, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(waiting, "FIRST_LINE_S", 0.2)
    others = [occupy.remote(3) for _ in range(2)]
    while ray.available_resources().get("CPU", 0) >= 1:
        time.sleep(0.05)
    run(pool_of(1), [Item(0)], tmp_path)
    assert "subject    waiting for a free GPU or CPU in the cluster" in capsys.readouterr().err
    ray.get(others)


def test_a_model_that_loads_slowly_is_said(ray_of_two_cores, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(waiting, "FIRST_LINE_S", 0.2)
    pool = ActorPool(ActorResource("subject", hold_slowly), ClusterSettings(actors=1))
    run(pool, [Item(0)], tmp_path)
    pool.close()
    assert "subject    waiting for its model to load, which the first use also d" in (
        capsys.readouterr().err
    )


def test_work_that_waits_for_what_its_actor_holds_is_said(capsys):
    jobs = [actor_pool._Job(None, number, waits_for="server 0 to answer") for number in range(2)]
    assert actor_pool._waits_for(jobs, has_idle=True) == "server 0 to answer"
    jobs[1].waits_for = ""
    assert actor_pool._waits_for(jobs, has_idle=False) == ""


def test_an_actor_that_dies_is_replaced_and_its_item_done_again(pool_of, tmp_path):
    run(pool_of(1), [Item(number) for number in range(5)], tmp_path, die_once)
    assert numbers(tmp_path) == list(range(5))
    assert len({path.name.split("-")[1] for path in tmp_path.iterdir()}) == 2


def stop_once_begun(pool: ActorPool, work: Callable[..., Any], **options: bool) -> None:
    """Run two items, with a signal as soon as the first makes progress."""
    begun = set()

    def stop(item: Item, units: int) -> None:
        if units and not begun:
            begun.add(item)
            signal.raise_signal(signal.SIGINT)

    list(pool.run([Item(0), Item(1)], work, stop, **options))


def test_at_a_signal_items_under_way_are_finished(pool_of, tmp_path, as_if_called):
    stop_on_signals()
    with pytest.raises(KeyboardInterrupt):
        stop_once_begun(pool_of(1), partial(write_after_counting, str(tmp_path)))
    assert numbers(tmp_path) == [0]


def test_items_that_are_abandoned_at_a_signal_end_with_what_their_actor_holds(
    ray_of_two_cores, tmp_path, as_if_called
):
    stop_on_signals()
    resource = ActorResource("simulate", partial(hold_folder, str(tmp_path)), unload=mark_ended)
    pool = ActorPool(resource, ClusterSettings(actors=1))
    with pytest.raises(KeyboardInterrupt):
        stop_once_begun(pool, work_until_ended, abandon_on_signal=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0 stopped", "ended"]


def test_an_exception_in_an_actor_is_raised(pool_of, tmp_path):
    with pytest.raises(TheirOwn, match="at 0"):
        run(pool_of(1), [Item(0)], tmp_path, raise_an_error)


def test_the_item_of_an_actor_without_heartbeat_is_done_by_another(pool_of, tmp_path, monkeypatch):
    monkeypatch.setattr(actor_pool, "_MISSED_HEARTBEAT_S", 0.5)
    run(pool_of(2), [Item(number) for number in range(4)], tmp_path, freeze_once)
    assert numbers(tmp_path) == [0, 1, 2, 3]
