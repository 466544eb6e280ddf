import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import LEASE_S, CallResult, Permit, StoredAnswer
from neuron_atlas.tasks.models.account.received import received_folder, store_received
from tests.loopback.fixture import Loopback
from tests.tasks.models.account.ledgers import lease, look_up

ROOT = Path(__file__).parents[4]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def permit_of(account: LocalAccount, request: str, owner: str = "me") -> Permit:
    permit = lease(account, request, 1.0, owner)
    assert isinstance(permit, Permit)
    return permit


def paid(call: int, request: str, text: str = "red") -> CallResult:
    return CallResult(call, "ok", request, text, False, 0.25, 100, 10, 1.5)


def receive(path: Path, result: CallResult, owner: str = "me") -> None:
    folder = received_folder(path, "explain")
    assert folder is not None
    store_received(folder / f"{owner}.jsonl", result)


def files(path: Path) -> list[Path]:
    return sorted((received_folder(path, "explain") or path).glob("*"))


def test_an_answer_that_was_received_outlives_the_process_that_asked(
    provider: Loopback, path: Path
) -> None:
    script = f"""
import asyncio, os, signal
from pathlib import Path
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import ClientSettings, connect
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import CallResult

path = Path({str(path)!r})

class Dying(LocalAccount):
    async def exchange(self, owner, items):
        if any(isinstance(item, CallResult) for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().exchange(owner, items)

async def work():
    calls = CallOptions(Dying(path))
    settings = ClientSettings(base_url={provider.base_url!r})
    prices = {{"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}}
    async with connect(settings, calls, prices) as connection:
        await connection.ask(Request([{{"role": "user", "content": "What is it?"}}], {{}}))

asyncio.run(work())
"""
    died = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert died.returncode == -9
    (kept,) = files(path)
    assert provider.key.encode() not in kept.read_bytes()
    assert kept.stat().st_mode & 0o077 == 0
    (sent,) = provider.requests()
    account = LocalAccount(path)
    tally = account.tally()
    assert isinstance(lease(account, sent["client_request_id"]), StoredAnswer)
    assert (tally.lost, tally.answered) == (0, 0)
    assert 0 < tally.spent_usd < 0.01
    account.close()
    assert files(path) == []


def test_what_the_dead_had_received_is_read_before_their_claims_lapse(path: Path) -> None:
    now = 100.0
    account = LocalAccount(path, clock=lambda: now)
    granted = permit_of(account, "a", "dead")
    receive(path, paid(granted.call, "a", "red"))
    assert lease(account, "a", 1.0, "alive") == "busy"
    now += 2 * LEASE_S
    assert lease(account, "a", 1.0, "alive") == StoredAnswer("red")
    tally = account.tally()
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (0, 0.25, 0)


def test_one_whose_driver_died_tells_the_next_run_what_it_received_meanwhile(path: Path) -> None:
    first = LocalAccount(path)
    granted = permit_of(first, "a")
    first.close()
    second = LocalAccount(path)
    receive(path, paid(granted.call, "a", "red"))
    assert lease(second, "a", 1.0, "other") == StoredAnswer("red")


def test_what_is_no_answer_to_a_call_of_this_journal_is_passed_over(path: Path) -> None:
    first = LocalAccount(path)
    calls = [permit_of(first, request).call for request in "abc"]
    first.close()
    receive(path, paid(calls[0], "a", "red"))
    receive(path, paid(calls[0], "a", "again"))
    receive(path, paid(calls[1], "of another journal", "red"))
    receive(path, paid(99, "z", "red"))
    receive(path, paid(calls[2], "c", "red"))
    (file,) = files(path)
    os.truncate(file, file.stat().st_size - 1)  # It was killed while it wrote the last.
    second = LocalAccount(path)
    answers = look_up(second, *"abcz")
    assert answers == ["red", None, None, None]
    tally = second.tally()
    assert (tally.lost, tally.spent_usd) == (2, 2.25)


def test_a_file_stays_for_as_long_as_the_journal_may_need_it(path: Path) -> None:
    first = LocalAccount(path)
    calls = [permit_of(first, request).call for request in "abc"]
    receive(path, paid(calls[0], "a", "red"))
    second = LocalAccount(path, has_callers=True)  # The first was killed.
    assert len(files(path)) == 1  # Its owner may be alive.
    receive(path, paid(calls[1], "b", "red"))
    second.close()
    assert files(path) == []
    receive(path, paid(calls[2], "c", "red"))  # It was alive.
    third = LocalAccount(path)
    assert look_up(third, *"abc") == ["red"] * 3
    assert third.tally().lost == 0
