"""Servers that the program starts on Ray: found by workers, started again, gone at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray

from neuron_atlas.tasks.models.servers import Servers
from neuron_atlas.tasks.serve.health import served_models
from neuron_atlas.tasks.serve.settings import ServersSettings
from neuron_atlas.workflows.models.servers import ServerPool, attach, server_count
from neuron_atlas.workflows.run.errors import RunFailed, WrongCall
from tests.workflows.runs import ROOT

TINY = ROOT / "tests" / "tasks" / "serve" / "tiny_server.py"
_PATIENCE_S = 30.0


def tiny(*words: str, **settings: Any) -> ServersSettings:
    command = (sys.executable, str(TINY), "{port}", *words)
    return ServersSettings(command, stop_s=1.0, **settings)


@contextmanager
def pool(
    servers: ServersSettings | None, logs: Path, base_urls: tuple[str, ...] = ()
) -> Iterator[ServerPool]:
    client = SimpleNamespace(model="tiny", api_key_env="NO_SUCH_KEY")
    simulate = SimpleNamespace(
        simulator=SimpleNamespace(client=client), servers=servers, base_urls=base_urls
    )
    opened = ServerPool(simulate, logs)  # type: ignore[arg-type]
    try:
        yield opened
    finally:
        opened.close()


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, "it never got there"
        time.sleep(0.1)


def processes(logs: Path) -> list[int]:
    """Those of each server's last run."""
    said = [path.read_text(encoding="utf-8").split() for path in sorted(logs.iterdir())]
    return [int(words[-1]) for words in said]


@ray.remote(num_cpus=0.1, max_retries=0)
def listed_to_a_worker(servers: Servers) -> list[tuple[str, str, list[str] | None]]:
    seen = []
    for one in asyncio.run(servers.directory(None)).servers:
        with suppress(OSError):  # Just killed.
            seen.append((one.name, one.base_url, served_models(one.base_url, servers.key, 5.0)))
    return seen


@pytest.mark.slow
def test_workers_find_all_servers_a_dead_one_is_started_again_and_none_is_left(
    ray_of_two_cores: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pool(tiny(count=2), tmp_path) as servers:
        opened = servers.opened()
        assert opened is not None
        assert servers.opened() is opened
        first = ray.get(listed_to_a_worker.remote(opened))
        assert [(name, models) for name, _, models in first] == [
            ("server-0", ["tiny"]),
            ("server-1", ["tiny"]),
        ]
        killed = processes(tmp_path)[0]
        os.kill(killed, signal.SIGKILL)

        def listed() -> list[Any]:
            return list(ray.get(listed_to_a_worker.remote(opened)))

        wait_until(lambda: len(now := listed()) == 2 and now[0][1] != first[0][1])
        said: list[str] = []

        def is_told() -> bool:
            said.append(capsys.readouterr().err)
            return "server 0 answers again" in "".join(said)

        wait_until(is_told)
        assert "server 0 ended with status 137: started again (1; 5 an hour" in "".join(said)
        running = processes(tmp_path)
        assert all(map(psutil.pid_exists, running))
    assert not any(map(psutil.pid_exists, [killed, *running]))


@pytest.mark.slow
def test_a_server_that_does_not_start_ends_the_run_with_the_end_of_its_log(
    ray_of_two_cores: None, tmp_path: Path
) -> None:
    failing = tiny("--fail", "no such weights")
    with pool(failing, tmp_path) as servers, pytest.raises(RunFailed) as raised:
        servers.opened()
    log = tmp_path / "server-0.log"
    assert str(raised.value) == (
        f"server 0 ended with status 1 before it answered; its log {log} ends:\n    no such weights"
    )


@pytest.mark.slow
def test_a_server_ends_with_the_actor_that_keeps_it(ray_of_two_cores: None, tmp_path: Path) -> None:
    with pool(tiny(), tmp_path) as servers:
        servers.opened()
        (running,) = processes(tmp_path)
        above = psutil.Process(running).parents()  # Two that watch, then the actor.
        keeper = next(one for one in above if "ServerActor" in " ".join(one.cmdline()))
        keeper.kill()
        wait_until(lambda: not psutil.pid_exists(running))
        wait_until(lambda: processes(tmp_path) != [running])  # Ray starts the actor again.


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
    with pytest.raises(WrongCall, match=r"^simulate\.servers: .* the cluster have 3 \+ 5$"):
        server_count(tiny(**settings), [3, 0, 5])


@pytest.mark.slow
def test_servers_of_others_are_looked_at_before_they_are_used(
    ray_of_two_cores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pool(tiny(), tmp_path) as servers:
        opened = servers.opened()
        assert opened is not None
        ((_, base_url, _),) = ray.get(listed_to_a_worker.remote(opened))
        monkeypatch.setenv("THEIR_KEY", opened.key)
        attached = attach((base_url,), "tiny", "THEIR_KEY")
        assert [one.base_url for one in attached.servers] == [base_url]
        with pytest.raises(WrongCall, match=r"serves tiny and not 'large'; set simulate\.client"):
            attach((base_url,), "large", "THEIR_KEY")
        with pytest.raises(WrongCall, match=r"refuses the key .*read from NO_SUCH_KEY"):
            attach((base_url,), "tiny", "NO_SUCH_KEY")
    with pytest.raises(WrongCall, match=r"^simulate\.base_urls: the server at .* refused"):
        attach((base_url,), "tiny", "THEIR_KEY")
    with pytest.raises(WrongCall, match=r"^simulate\.base_urls: .* no whole address"):
        attach(("gpu-1:8000",), "tiny", "THEIR_KEY")
