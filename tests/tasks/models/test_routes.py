"""Requests find their servers, and others when those die."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.client import Answer, ClientSettings, connect
from neuron_atlas.tasks.models.failures import Stopped
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.routes import Routes
from neuron_atlas.tasks.models.servers import Directory, FixedServers, Server
from neuron_atlas.tasks.serve.health import served_models
from tests.loopback.fixture import Loopback

NAMES = [f"server-{number}" for number in range(4)]
IMAGES = [f"image {number}" for number in range(400)]
NOBODY = "http://127.0.0.1:1/v1"


@dataclass
class Changing:
    """Servers whose directory a test sets."""

    now: Directory
    key: str = ""
    ours: bool = True
    direct: bool = True
    asked: int = 0

    async def directory(self, known: Directory | None) -> Directory:
        self.asked += 1
        while self.now == known:
            await asyncio.sleep(0.01)
        return self.now


@pytest.fixture(autouse=True)
def tries_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuron_atlas.tasks.models.routes._AVOID_S", 0.1)
    monkeypatch.setattr("neuron_atlas.tasks.models.routes._LOOK_EVERY_S", 0.05)


def listed(*names: str, at: str = "http://{}/v1") -> Directory:
    return Directory(tuple(Server(name, at.format(name)) for name in names))


def chosen(servers: Any, affinities: list[str]) -> dict[str, str]:
    async def choose() -> dict[str, str]:
        async with Routes(servers, lambda url: SimpleNamespace(close=None)) as routes:  # type: ignore[arg-type,return-value]
            found = {each: routes.choose(each) for each in affinities}
            return {each: server.name for each, server in found.items() if server}

    return asyncio.run(choose())


def test_all_about_an_image_goes_to_one_server_and_the_images_spread_over_all() -> None:
    first = chosen(Changing(listed(*NAMES)), IMAGES)
    assert first == chosen(Changing(listed(*NAMES)), IMAGES)
    load = Counter(first.values())
    assert sorted(load) == NAMES
    assert min(load.values()) >= 70  # Of 100 on the average.


def test_when_a_server_dies_only_its_images_move_and_they_come_back_with_it() -> None:
    before = chosen(Changing(listed(*NAMES)), IMAGES)
    left = chosen(Changing(listed(*NAMES[1:])), IMAGES)
    assert {image for image in IMAGES if before[image] != left[image]} == {
        image for image in IMAGES if before[image] == NAMES[0]
    }
    again = chosen(Changing(listed(*NAMES, at="http://elsewhere/{}/v1")), IMAGES)
    assert again == before


def ask(settings: ClientSettings, servers: Any, affinity: str = "", during: Any = None) -> Answer:
    (answer,) = asyncio.run(_ask(settings, servers, [affinity], during))
    return answer


async def _ask(
    settings: ClientSettings, servers: Any, affinities: list[str], during: Any = None
) -> list[Answer]:
    """The answers to requests of these affinities, one after the other."""
    message = {"role": "user", "content": "What does it like?"}
    requests = [Request([message], {"seed": n}, affinity=each) for n, each in enumerate(affinities)]
    async with connect(settings, Calls(servers=servers)) as connection:
        asking = [asyncio.ensure_future(connection.ask(requests[0]))]
        if during is not None:
            await during()
        return [await asking[0], *[await connection.ask(each) for each in requests[1:]]]


def quick(**changes: Any) -> ClientSettings:
    return ClientSettings(first_wait_s=0.01, timeout_s=5.0, **changes)


def test_a_server_that_is_being_started_again_costs_no_attempts(provider: Loopback) -> None:
    servers = Changing(Directory((Server("server-0", NOBODY),)), provider.key)

    async def restart() -> None:
        await asyncio.sleep(0.3)
        assert provider.requests() == []
        servers.now = Directory()
        await asyncio.sleep(0.3)
        servers.now = Directory((Server("server-0", provider.base_url),))

    answer = ask(quick(max_attempts=1), servers, during=restart)
    assert (answer.status, answer.attempts) == ("ok", 1)


def test_requests_to_a_server_that_cannot_be_reached_go_to_another(provider: Loopback) -> None:
    both = FixedServers((Server("a", NOBODY), Server("b", provider.base_url)), provider.key)
    affinity = next(each for each, name in chosen(both, IMAGES).items() if name == "a")
    answer = ask(quick(max_attempts=1), both, affinity)
    assert (answer.status, answer.attempts) == ("ok", 1)


def test_servers_of_others_that_cannot_be_reached_are_a_failure_after_the_attempts() -> None:
    servers = FixedServers((Server("a", NOBODY), Server("b", NOBODY)), "key")
    answer = ask(quick(max_attempts=3), servers)
    assert (answer.status, answer.attempts) == ("failed", 3)
    assert "ConnectError" in answer.reason


def test_a_request_that_breaks_its_server_each_time_is_a_failure(provider: Loopback) -> None:
    provider.misbehave("reset", times=-1)
    servers = Changing(Directory((Server("server-0", provider.base_url),)), provider.key)
    answer = ask(quick(max_attempts=3), servers)
    assert (answer.status, answer.attempts) == ("failed", 3)


def test_when_all_servers_are_given_up_the_run_stops_with_what_became_of_them() -> None:
    with pytest.raises(Stopped, match=r"^server 0 ended too often$"):
        ask(quick(), Changing(Directory((), "server 0 ended too often"), "key"))


def test_one_that_is_out_of_reach_for_long_though_it_is_said_to_answer_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neuron_atlas.tasks.models.routes._EXCUSED_S", 0.3)
    servers = Changing(Directory((Server("server-0", NOBODY),)), "key")
    answer = ask(quick(max_attempts=2), servers)
    assert (answer.status, answer.attempts) == ("failed", 2)


@contextmanager
def answers_nothing(connects: bool) -> Iterator[str]:
    """The address of somebody who lets requests come in and is silent, or whose machine drops even
    what would connect to it."""
    with ExitStack() as open_, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64 if connects else 0)
        for _ in range(0 if connects else 3):  # The backlog is full: what comes now is dropped.
            waiting = open_.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def test_a_server_of_others_whose_machine_drops_what_is_sent_costs_no_attempt(
    provider: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuron_atlas.tasks.models.send._CONNECTS_WITHIN_S", 0.2)
    with answers_nothing(connects=False) as nobody:
        both = FixedServers((Server("a", nobody), Server("b", provider.base_url)), provider.key)
        affinity = next(each for each, name in chosen(both, IMAGES).items() if name == "a")
        answer = ask(quick(max_attempts=1), both, affinity)
    assert (answer.status, answer.attempts) == ("ok", 1)


def test_after_no_answer_in_time_the_next_attempts_go_to_another_server(provider: Loopback) -> None:
    with answers_nothing(connects=True) as nobody:
        both = FixedServers((Server("a", nobody), Server("b", provider.base_url)), provider.key)
        affinity = next(each for each, name in chosen(both, IMAGES).items() if name == "a")
        settings = ClientSettings(first_wait_s=0.2, timeout_s=0.5, max_attempts=2)
        answers = asyncio.run(_ask(settings, both, [affinity, affinity]))
    assert [answer.status for answer in answers] == ["ok", "ok"]
    assert [answer.attempts for answer in answers] == [2, 1]


def test_a_server_of_our_own_that_did_not_answer_in_time_is_asked_again(provider: Loopback) -> None:
    provider.misbehave("hang", times=1, seconds=5)
    servers = Changing(Directory((Server("server-0", provider.base_url),)), provider.key)
    settings = ClientSettings(first_wait_s=0.01, timeout_s=0.3, max_attempts=2)
    (answer,) = asyncio.run(asyncio.wait_for(_ask(settings, servers, [""]), timeout=10))
    assert (answer.status, answer.attempts) == ("ok", 2)


@pytest.mark.parametrize(
    ("ours", "left_alone"),
    [(False, [0.1, 0.2, 0.35, 0.35, 0.1]), (True, [0.1, 0.1, 0.1, 0.1, 0.1])],
)
def test_a_server_of_others_is_left_alone_longer_each_time_until_it_answers(
    monkeypatch: pytest.MonkeyPatch, ours: bool, left_alone: list[float]
) -> None:
    now = 1000.0
    monkeypatch.setattr("neuron_atlas.tasks.models.routes._LONGEST_AVOID_S", 0.35)
    monkeypatch.setattr(
        "neuron_atlas.tasks.models.routes.time", SimpleNamespace(monotonic=lambda: now)
    )
    servers = FixedServers((Server("a", NOBODY), Server("b", f"{NOBODY}/b")), "key", ours=ours)
    affinity = next(each for each, name in chosen(servers, IMAGES).items() if name == "a")
    first, other = servers.servers

    async def work() -> None:
        nonlocal now
        async with Routes(servers, lambda url: SimpleNamespace(close=None)) as routes:  # type: ignore[arg-type,return-value]
            for turn, left_alone_s in enumerate(left_alone):
                if turn == 4:
                    routes.reached(first)
                assert routes.missed(first)
                now += left_alone_s - 0.01
                assert routes.missed(first)  # Under way meanwhile: the same miss.
                assert routes.choose(affinity) == other
                now += 0.02
                assert routes.choose(affinity) == first

    asyncio.run(work())


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOBODY.removesuffix("/v1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


def test_servers_of_our_own_are_never_asked_by_way_of_a_proxy(
    provider: Loopback, dead_proxy: None
) -> None:
    servers = Changing(Directory((Server("server-0", provider.base_url),)), provider.key)
    assert ask(quick(), servers).status == "ok"


def test_servers_at_addresses_are_asked_as_they_are_looked_at_and_not_by_way_of_a_proxy(
    provider: Loopback, dead_proxy: None
) -> None:
    served_models(provider.base_url, provider.key, 5.0)  # Else it raises.
    assert ask(quick(), FixedServers.at((provider.base_url,), provider.key)).status == "ok"


def test_the_one_provider_of_the_settings_is_asked_by_way_of_the_proxy_that_there_is(
    provider: Loopback, dead_proxy: None
) -> None:
    answer = ask(quick(base_url=provider.base_url, max_attempts=1), None)
    assert (answer.status, answer.reason.split(":")[1]) == ("failed", " ConnectError")


def test_the_key_of_the_servers_is_sent_and_never_shown(
    provider: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    servers = FixedServers((Server("a", provider.base_url),), provider.key)
    assert ask(quick(), servers).status == "ok"
    assert provider.key not in repr(Calls(servers=servers))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://gpu-1:8000", "http://gpu-1:8000/v1"),
        ("http://gpu-1:8000/", "http://gpu-1:8000/v1"),
        ("https://gpu-1/models/v1/", "https://gpu-1/models/v1"),
    ],
)
def test_the_path_of_an_address_is_v1_unless_it_is_given(given: str, taken: str) -> None:
    assert FixedServers.at((given,), "key").servers == (Server(taken, taken),)


@pytest.mark.parametrize(
    "wrong", ["gpu-1:8000", "http://", "http://a:b@host/v1", "http://h/v1?k=1"]
)
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="address"):
        FixedServers.at((wrong,), "key")
