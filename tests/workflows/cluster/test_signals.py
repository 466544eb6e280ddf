"""Answers that are under way when the run is stopped."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import ray

from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import ClientSettings, connect
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.workflows.cluster.cpu_tasks import run_on_cpus
from neuron_atlas.workflows.models.account import open_account
from tests.loopback.fixture import Loopback
from tests.workflows.cluster.ray_work import fail_once


@ray.remote(num_cpus=0.1, max_retries=0)
def ask(settings: ClientSettings, calls: CallOptions, folder: str, key: str) -> None:
    os.environ |= {"OPENAI_API_KEY": key, "NO_PROXY": "127.0.0.1"}

    async def work() -> None:
        async with connect(settings, calls) as connection:
            asking = asyncio.ensure_future(
                connection.ask(Request([{"role": "user", "content": "What does it like?"}], {}))
            )
            await asyncio.sleep(0.5)
            Path(folder, "sent").touch()
            await asking
            await asyncio.sleep(60)

    asyncio.run(work())


def test_a_worker_that_is_stopped_keeps_the_answer_that_is_on_its_way(
    ray_of_two_cores: None, provider: Loopback, tmp_path: Path
) -> None:
    provider.misbehave("slow", seconds=3)
    settings = ClientSettings(base_url=provider.base_url)
    signs = tmp_path / "signs"
    signs.mkdir()
    path = tmp_path / "journal.sqlite"
    with open_account(path, "explain", None, settings, {}) as account:
        account.share_limits()  # Their actors have to start.
        account.tally()

        def submit(number: int) -> ray.ObjectRef:
            if number:
                return fail_once.remote(str(signs), 1)
            return ask.remote(settings, CallOptions(account), str(signs), provider.key)

        with pytest.raises(Exception, match="at once"):
            list(run_on_cpus(range(2), submit, ending_s=20))
        tally = account.tally()
    assert [line["answered"] for line in provider.requests()] == [True]
    assert (tally.answered, tally.lost, tally.held_usd) == (1, 0, 0)
