"""Servers that the actors of a pool run: how many, and what becomes of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from neuron_atlas.tasks.models.failures import ProviderStoppedError
from neuron_atlas.workflows.cluster.actor_pool import ActorPool
from neuron_atlas.workflows.config.servers import ServersSettings
from neuron_atlas.workflows.config.settings import ClusterSettings
from neuron_atlas.workflows.models.model_server import ModelServer
from neuron_atlas.workflows.models.servers import server_count, server_resource
from neuron_atlas.workflows.run.errors import ConfigError
from tests.workflows.models.test_server_process import TINY, gone, said, wait_until


def tiny(*words: str, **settings: Any) -> ServersSettings:
    command = (sys.executable, str(TINY), "{port}", *words)
    return ServersSettings(command, stop_timeout_s=1.0, **settings)


@contextmanager
def pool(servers: ServersSettings, logs: Path) -> Iterator[ActorPool]:
    opened = ActorPool(server_resource(servers, logs), ClusterSettings())
    try:
        yield opened
    finally:
        opened.close()


def models_of(server: ModelServer, item: int, count: Any) -> list[str]:
    asyncio.run(server.ready())
    request = urllib.request.Request(f"{server.choose('')}/models")
    request.add_header("Authorization", f"Bearer {server.key}")
    with urllib.request.urlopen(request, timeout=5) as reply:
        return [model["id"] for model in json.load(reply)["data"]]


def process_of(server: ModelServer, item: int, count: Any) -> int:
    return os.getpid()


def run(opened: ActorPool, items: Sequence[int]) -> list[list[str]]:
    return [models for _, models in opened.run(items, models_of, lambda item, units: None)]


def processes(logs: Path) -> list[int]:
    """The servers' last processes."""
    return [said(log)[-1] for log in sorted(logs.iterdir())]


@pytest.mark.slow
def test_every_actor_runs_a_server_of_its_own_and_none_is_left(
    ray_of_two_cores: None, tmp_path: Path
) -> None:
    with pool(tiny(count=2), tmp_path) as opened:
        assert run(opened, range(20)) == [["tiny"]] * 20
        running = processes(tmp_path)
        assert len(running) <= 2
        assert all(map(psutil.pid_exists, running))
    assert gone(running)


@pytest.mark.slow
def test_a_server_that_does_not_start_ends_the_run_with_the_end_of_its_log(
    ray_of_two_cores: None, tmp_path: Path
) -> None:
    with (
        pool(tiny("--fail", "no such weights"), tmp_path) as opened,
        pytest.raises(ProviderStoppedError) as raised,
    ):
        run(opened, [0])
    log = tmp_path / "server-0.log"
    assert str(raised.value) == (
        f"server 0 ended with status 1 before it answered; its log {log} ends:\n    no such weights"
    )


@pytest.mark.slow
def test_a_server_ends_with_its_actor(ray_of_two_cores: None, tmp_path: Path) -> None:
    with pool(tiny(), tmp_path) as opened:
        run(opened, [0])
        (running,) = processes(tmp_path)
        ((_, actor),) = opened.run([0], process_of, lambda item, units: None)
        os.kill(actor, signal.SIGKILL)
        wait_until(lambda: gone([running]))
        assert run(opened, [1]) == [["tiny"]]  # Ray starts the actor again.
        assert processes(tmp_path) != [running]


@pytest.mark.parametrize(
    ("settings", "gpus", "count"),
    [
        ({}, [0, 0], 1),
        ({"count": 3}, [0], 3),
        ({}, [0, 8], 8),
        ({"gpus": 2}, [8], 4),
        ({"count": 1}, [8], 1),
        ({"gpus": 2}, [3, 3], 2),
        ({"gpus": 4}, [0, 4, 2, 8], 3),
        ({"gpus": 0}, [8], 1),
    ],
)
def test_there_is_a_server_for_each_gpu_or_as_many_as_are_asked_for(
    settings: dict[str, int], gpus: list[int], count: int
) -> None:
    assert server_count(tiny(**settings), gpus) == count


@pytest.mark.parametrize(
    "settings", [{"count": 9}, {"gpus": 8}, {"count": 3, "gpus": 4}, {"count": 4, "gpus": 2}]
)
def test_more_gpus_than_nodes_have_is_a_wrong_call(settings: dict[str, int]) -> None:
    with pytest.raises(
        ConfigError, match=r"^simulate\.servers: .* which have 3 \+ 5; lower count or gpus$"
    ):
        server_count(tiny(**settings), [3, 0, 5])
