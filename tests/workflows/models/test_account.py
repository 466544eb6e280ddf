"""One account for all workers of a run, with limits for all programs of a cluster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from neuron_atlas.tasks.models.account.messages import (
    CallResult,
    LeaseRequest,
    Permit,
    StoredAnswer,
    Usage,
)
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.models.account import RemoteAccount, limits_name, open_account
from tests.workflows.runs import ROOT

RATE = LimitSettings(requests_per_minute=600)
"""Ten a second."""


def client(limits: LimitSettings = RATE) -> ClientSettings:
    return ClientSettings(limits=LimitSettings(**vars(limits) | {"account": uuid.uuid4().hex}))


@pytest.fixture
def settings() -> ClientSettings:
    return client()


@pytest.fixture
def account(
    ray_of_two_cores: None, tmp_path: Path, settings: ClientSettings
) -> Iterator[RemoteAccount]:
    with open_account(tmp_path / "journal.sqlite", "explain", None, settings, {}) as opened:
        opened.share_limits()
        yield opened


async def lease(account: RemoteAccount, owner: str, request: str) -> Permit | StoredAnswer:
    while True:
        (reply,), wait_s = await account.exchange(owner, [LeaseRequest(request, "gpt-4o", 1, 0.0)])
        if isinstance(reply, Permit | StoredAnswer):
            return reply
        await asyncio.sleep(wait_s)


def n_leased(account: RemoteAccount, seconds: float) -> int:
    """Count the permits that one worker gets in so many seconds."""

    async def work() -> int:
        owner, leased, deadline = uuid.uuid4().hex, 0, time.monotonic() + seconds
        while time.monotonic() < deadline:
            await lease(account, owner, f"{owner} {leased}")
            leased += 1
        return leased

    return asyncio.run(work())


@ray.remote(num_cpus=0.1, max_retries=0)
def leased_by_a_worker(account: RemoteAccount, seconds: float) -> int:
    return n_leased(account, seconds)


def test_workers_share_the_limits_of_an_account(account: RemoteAccount) -> None:
    ray.get([leased_by_a_worker.remote(account, 0.1) for _ in range(3)])  # They have to start.
    begun = time.monotonic()
    leased = ray.get([leased_by_a_worker.remote(account, 3.0) for _ in range(3)])
    took = time.monotonic() - begun
    # Five seconds of unused rate may be a burst, and each waits for one more at the end.
    assert 25 <= sum(leased) <= 10 * (took + 5) + 3


def test_another_program_on_the_cluster_shares_them_too(
    account: RemoteAccount, settings: ClientSettings, tmp_path: Path
) -> None:
    script = f"""
import ray
from pathlib import Path
ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
ray.init({ray.get_runtime_context().gcs_address!r}, _node_ip_address='127.0.0.1')
from neuron_atlas.tasks.models.settings import *
from neuron_atlas.workflows.models.account import open_account
from tests.workflows.models.test_account import n_leased
client = {settings!r}
path = Path({str(tmp_path / "other.sqlite")!r})
with open_account(path, "explain", None, client, {{}}) as account:
    print(account.share_limits().requests_per_minute, n_leased(account, 2.0))
"""
    begun = time.monotonic()
    mine = n_leased(account, 1.0)
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert other.returncode == 0, other.stderr
    before, theirs = (int(word) for word in other.stdout.split()[-2:])
    assert before == 600  # The limits were there.
    assert theirs >= 1
    assert mine + theirs <= 10 * (time.monotonic() - begun + 5) + 2


def test_what_was_not_sent_can_be_leased_again(ray_of_two_cores: None, tmp_path: Path) -> None:
    one_at_a_time = client(LimitSettings(concurrency=1))

    async def work(account: RemoteAccount) -> None:
        for number in range(5):
            permit = await asyncio.wait_for(lease(account, "me", f"{number}"), 60)
            assert isinstance(permit, Permit)
            unsent = CallResult(permit.call, "stopped", usage=Usage(sent=False))
            await account.exchange("me", [unsent])

    with open_account(tmp_path / "journal.sqlite", "explain", None, one_at_a_time, {}) as account:
        asyncio.run(work(account))


def test_an_account_that_is_killed_goes_on_with_what_was_leased(account: RemoteAccount) -> None:
    async def work() -> None:
        permit = await lease(account, "me", "a")
        ray.kill(account.actor, no_restart=False)
        assert isinstance(permit, Permit)
        answer = CallResult(permit.call, "ok", answer='"red"', usd=0.5)
        await asyncio.wait_for(account.exchange("me", [answer]), 120)
        assert await lease(account, "they", "a") == StoredAnswer('"red"')

    asyncio.run(work())
    assert (account.tally().lost, account.tally().spent_usd) == (0, 0.5)


def test_limits_that_died_are_set_up_again_as_they_were_last(
    account: RemoteAccount, settings: ClientSettings
) -> None:
    name = limits_name(settings)
    ray.kill(ray.get_actor(name, "neuron-atlas"), no_restart=False)
    assert asyncio.run(asyncio.wait_for(lease(account, "me", "a"), 120))
    assert account.share_limits() == settings.limits


def test_a_program_that_comes_later_sets_the_limits_for_all(
    account: RemoteAccount, settings: ClientSettings, tmp_path: Path
) -> None:
    slower = LimitSettings(requests_per_minute=60, account=settings.limits.account)
    later = ClientSettings(limits=slower)
    with open_account(tmp_path / "later.sqlite", "explain", None, later, {}) as other:
        assert other.share_limits() == settings.limits
        assert account.share_limits() == slower
