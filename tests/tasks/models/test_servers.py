"""Requests find their servers, and others when those fail."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import Answer, ClientSettings, connect
from neuron_atlas.tasks.models.failures import ProviderStoppedError
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.servers import FixedServers, Servers, complete_url
from tests.loopback.fixture import Loopback

URLS = [f"http://server-{number}/v1" for number in range(4)]
IMAGES = [f"image {number}" for number in range(400)]
NOBODY = "http://127.0.0.1:1/v1"


class OwnServer:
    """A server of the run, which is down until `up_at`, or for good with `failed`."""

    is_own = True

    def __init__(self, base_url: str, key: str, down_s: float = 0.0, failed: str = "") -> None:
        self.key, self._base_url, self._failed = key, base_url, failed
        self._up_at = time.monotonic() + down_s

    async def ready(self) -> None:
        if self._failed:
            raise ProviderStoppedError(self._failed)

    def choose(self, affinity: str) -> str:
        return self._base_url if time.monotonic() > self._up_at else NOBODY

    def mark_answered(self, base_url: str) -> None: ...

    def mark_unreachable(self, base_url: str) -> bool:
        return True

    def mark_timed_out(self, base_url: str, timeout_s: float) -> None: ...


def chosen(servers: Servers) -> dict[str, str]:
    return {image: servers.choose(image) for image in IMAGES}


def test_all_about_an_image_goes_to_one_server_and_the_images_spread_over_all() -> None:
    first = chosen(FixedServers(URLS, "key"))
    assert first == chosen(FixedServers(URLS, "key"))
    load = Counter(first.values())
    assert sorted(load) == URLS
    assert min(load.values()) >= 70  # Of 100 on average.


def test_when_a_server_is_gone_only_its_images_move_and_they_come_back_with_it() -> None:
    servers = FixedServers(URLS, "key")
    before = chosen(servers)
    assert servers.mark_unreachable(URLS[0])
    moved = {image for image, url in chosen(servers).items() if url != before[image]}
    assert moved == {image for image, url in before.items() if url == URLS[0]}
    servers.mark_answered(URLS[0])
    assert chosen(servers) == before


def test_when_all_are_gone_the_miss_counts() -> None:
    servers = FixedServers(URLS[:2], "key")
    assert servers.mark_unreachable(URLS[0])
    assert not servers.mark_unreachable(URLS[1])


def ask(settings: ClientSettings, servers: Any, affinity: str = "") -> Answer:
    (answer,) = asyncio.run(_ask(settings, servers, [affinity]))
    return answer


async def _ask(settings: ClientSettings, servers: Any, affinities: Sequence[str]) -> list[Answer]:
    """The answers to requests of these affinities, one after the other."""
    message = {"role": "user", "content": "What does it like?"}
    requests = [Request([message], {"seed": n}, affinity=each) for n, each in enumerate(affinities)]
    async with connect(settings, CallOptions(servers=servers)) as connection:
        return [await connection.ask(each) for each in requests]


def quick(**changes: Any) -> ClientSettings:
    return ClientSettings(backoff_s=0.01, timeout_s=5.0, **changes)


def first_of(servers: FixedServers, base_url: str) -> str:
    """An affinity whose requests go to this server."""
    return next(image for image, url in chosen(servers).items() if url == base_url)


def test_a_server_that_is_being_started_again_costs_no_attempts(provider: Loopback) -> None:
    server = OwnServer(provider.base_url, provider.key, down_s=0.5)
    answer = ask(quick(max_attempts=1), server)
    assert (answer.status, answer.attempts) == ("ok", 1)


def test_requests_to_a_server_that_cannot_be_reached_go_to_another(provider: Loopback) -> None:
    both = FixedServers([NOBODY, provider.base_url], provider.key)
    answer = ask(quick(max_attempts=1), both, first_of(both, NOBODY))
    assert (answer.status, answer.attempts) == ("ok", 1)


def test_servers_that_cannot_be_reached_are_a_failure_after_the_attempts() -> None:
    answer = ask(quick(max_attempts=3), FixedServers([NOBODY, f"{NOBODY}/b"], "key"))
    assert (answer.status, answer.attempts) == ("failed", 3)
    assert "ConnectError" in answer.reason


def test_a_request_that_breaks_its_server_each_time_is_a_failure(provider: Loopback) -> None:
    provider.misbehave("reset", times=-1)
    answer = ask(quick(max_attempts=3), OwnServer(provider.base_url, provider.key))
    assert (answer.status, answer.attempts) == ("failed", 3)


def test_when_the_server_is_given_up_the_run_stops_with_what_became_of_it() -> None:
    with pytest.raises(ProviderStoppedError, match=r"^server 0 ended too often$"):
        ask(quick(), OwnServer(NOBODY, "key", failed="server 0 ended too often"))


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


def test_a_server_whose_machine_drops_what_is_sent_costs_no_attempt(
    provider: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuron_atlas.tasks.models.send._CONNECTS_WITHIN_S", 0.2)
    with answers_nothing(connects=False) as nobody:
        both = FixedServers([nobody, provider.base_url], provider.key)
        answer = ask(quick(max_attempts=1), both, first_of(both, nobody))
    assert (answer.status, answer.attempts) == ("ok", 1)


def test_after_no_answer_in_time_the_next_attempts_go_to_another_server(provider: Loopback) -> None:
    with answers_nothing(connects=True) as nobody:
        both = FixedServers([nobody, provider.base_url], provider.key)
        affinity = first_of(both, nobody)
        settings = ClientSettings(backoff_s=0.01, timeout_s=0.5, max_attempts=2)
        answers = asyncio.run(_ask(settings, both, [affinity, affinity]))
    assert [answer.status for answer in answers] == ["ok", "ok"]
    assert [answer.attempts for answer in answers] == [2, 1]


@pytest.fixture
def dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", NOBODY.removesuffix("/v1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


def test_servers_are_never_reached_through_a_proxy(provider: Loopback, dead_proxy: None) -> None:
    assert ask(quick(), OwnServer(provider.base_url, provider.key)).status == "ok"
    assert ask(quick(), FixedServers([provider.base_url], provider.key)).status == "ok"


def test_the_one_provider_of_the_settings_is_reached_through_the_proxy_that_there_is(
    provider: Loopback, dead_proxy: None
) -> None:
    answer = ask(quick(base_url=provider.base_url, max_attempts=1), None)
    assert (answer.status, answer.reason.split(":")[1]) == ("failed", " ConnectError")


def test_the_key_of_the_servers_is_sent_and_never_shown(
    provider: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    servers = FixedServers([provider.base_url], provider.key)
    assert ask(quick(), servers).status == "ok"
    assert provider.key not in repr(CallOptions(servers=servers))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://gpu-1:8000", "http://gpu-1:8000/v1"),
        ("http://gpu-1:8000/", "http://gpu-1:8000/v1"),
        ("https://gpu-1/models/v1/", "https://gpu-1/models/v1"),
    ],
)
def test_the_path_of_an_address_is_v1_unless_it_is_given(given: str, taken: str) -> None:
    assert complete_url(given) == taken


@pytest.mark.parametrize(
    "wrong", ["gpu-1:8000", "http://", "http://a:b@host/v1", "http://h/v1?k=1"]
)
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="address"):
        complete_url(wrong)
