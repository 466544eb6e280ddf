"""One budget of permits for all workers and all programs of a cluster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid

import pytest
import ray

from neuron_atlas.tasks.models.limits import Settled
from neuron_atlas.tasks.models.settings import LimitSettings
from neuron_atlas.workflows.models.limits import RemoteLimits
from tests.workflows.runs import ROOT

RATE = LimitSettings(requests_per_minute=600)
"""Ten a second."""


@pytest.fixture
def limits(ray_of_two_cores: None) -> RemoteLimits:
    return RemoteLimits(f"account {uuid.uuid4().hex}", RATE)


def take(limits: RemoteLimits, seconds: float) -> int:
    """Permits that one worker got in so long."""

    async def work() -> int:
        taken, deadline = 0, time.monotonic() + seconds
        while time.monotonic() < deadline:
            taken += len(await limits.lease("worker", (1,)))
        return taken

    return asyncio.run(work())


@ray.remote(num_cpus=0.1, max_retries=0)
def taken_by_a_worker(limits: RemoteLimits, seconds: float) -> int:
    return take(limits, seconds)


def test_workers_share_the_limits_of_an_account(limits: RemoteLimits) -> None:
    ray.get([taken_by_a_worker.remote(limits, 0.1) for _ in range(3)])  # They have to start.
    begun = time.monotonic()
    taken = ray.get([taken_by_a_worker.remote(limits, 3.0) for _ in range(3)])
    spent = time.monotonic() - begun
    # Five seconds of pace may be made up for, and each waits for one more at the end.
    assert sum(taken) <= 10 * (spent + 5) + 3
    assert sum(taken) >= 25
    assert min(taken) >= max(taken) / 3


def test_another_program_on_the_cluster_shares_them_too(limits: RemoteLimits) -> None:
    script = f"""
import ray
ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
ray.init({ray.get_runtime_context().gcs_address!r}, _node_ip_address='127.0.0.1')
from tests.workflows.models.test_limits import RATE, take
from neuron_atlas.workflows.models.limits import RemoteLimits
print(take(RemoteLimits({limits.account!r}, RATE), 2.0))
"""
    limits.agree()

    async def use_up() -> None:
        await asyncio.gather(*(limits.lease("first", (1,)) for _ in range(5)))

    asyncio.run(use_up())
    other = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 0, other.stderr
    # At ten a second, with five seconds made up for.
    assert 10 <= int(other.stdout.split()[-1]) <= 75
    # What the other program did not settle is still charged.
    actor = limits._actor()
    assert ray.get(actor.in_flight.remote()) >= 15


def test_what_is_given_back_unused_can_be_had_again(ray_of_two_cores: None) -> None:
    limits = RemoteLimits(f"account {uuid.uuid4().hex}", LimitSettings(concurrency=1))

    async def work() -> int:
        for _ in range(5):
            (permit,) = await limits.lease("me", (1,))
            await limits.settle("me", (Settled(permit),))
        return permit

    assert asyncio.run(work()) == 5


def test_limits_that_died_are_set_up_again(limits: RemoteLimits) -> None:
    async def work() -> None:
        await limits.lease("me", (1,))
        ray.kill(limits._actor())
        assert await asyncio.wait_for(limits.lease("me", (1,)), 60)

    asyncio.run(work())


def test_limits_that_died_are_set_up_again_as_they_were_agreed_last(limits: RemoteLimits) -> None:
    limits.agree()
    later = RemoteLimits(limits.account, LimitSettings(requests_per_minute=60))
    later.agree()

    ray.kill(later._actor(), no_restart=False)
    time.sleep(1)  # Until it is dead.
    assert asyncio.run(asyncio.wait_for(later.lease("me", (1,)), 60))
    assert later.agree() == later.settings


def test_a_program_that_comes_later_sets_the_limits_for_all(limits: RemoteLimits) -> None:
    assert limits.agree() == RATE
    later = RemoteLimits(limits.account, LimitSettings(requests_per_minute=60))
    assert later.agree() == RATE
    assert limits.agree() == later.settings
