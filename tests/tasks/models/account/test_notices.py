"""What the user is told about waits, once."""

from __future__ import annotations

import asyncio
import time

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import LeaseRequest
from neuron_atlas.tasks.models.account.notices import Notices
from neuron_atlas.tasks.models.settings import LimitSettings
from tests.tasks.models.asking import ask, quick, words


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_wait_of_more_than_ten_seconds_says_for_what_and_until_when():
    notices = Notices(Clock())
    notices.add_wait(9.0, "gpt-4o", "HTTP 500: down")
    assert notices.lines == []
    notices.add_wait(45.0, "gpt-4o", "HTTP 429: too fast")
    until = time.strftime("%H:%M:%S", time.localtime(time.time() + 45))
    (line,) = notices.lines
    assert line.startswith(f"waits 45 s, until {until[:5]}")
    assert line.endswith("before it calls gpt-4o again: HTTP 429: too fast")


def test_the_same_wait_of_many_calls_is_said_once_and_a_longer_one_again():
    clock = Clock()
    notices = Notices(clock)
    for number in range(64):
        notices.add_wait(30.0, "gpt-4o", f"HTTP 429: request {number} is too early")
        clock.now += 0.1
    assert len(notices.lines) == 1
    notices.add_wait(3600.0, "gpt-4o", "HTTP 429")
    assert len(notices.lines) == 2
    assert "waits 3,600 s" in notices.lines[1]


def test_a_wait_of_a_day_names_the_day():
    notices = Notices(Clock())
    notices.add_wait(86_400.0, "gpt-4o", "HTTP 429")
    assert time.strftime("%Y-%m-%d", time.localtime(time.time() + 86_400)) in notices.lines[0]


def test_limits_that_hold_all_calls_back_are_named_after_ten_seconds_and_not_all_the_time():
    clock = Clock()
    account = LocalAccount(limits=LimitSettings(requests_per_minute=1), clock=clock)

    def lease(number: int) -> None:
        want = LeaseRequest(f"{number}", "gpt-4o", 10, 0.0)
        asyncio.run(account.exchange("one", [want]))

    lease(0)
    for number in range(1, 30):
        clock.now += 1.0
        lease(number)
    (line,) = account.tally().notices
    assert "within the limits in explain.client.limits" in line


@pytest.mark.parametrize("retry_after", ["3600", "45"])
def test_a_provider_that_asks_for_a_pause_is_quoted(provider, retry_after):
    provider.misbehave("429", retry_after=retry_after)
    account = LocalAccount()
    settings = quick(provider, max_attempts=1)
    assert ask(settings, account, words("one")).status == "rate_limited"
    (line,) = account.tally().notices
    assert f"waits {int(retry_after):,} s, until " in line
    assert line.endswith("HTTP 429: Rate limit reached.")
