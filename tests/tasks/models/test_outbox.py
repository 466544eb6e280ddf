import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.journal import Claim, Spent
from neuron_atlas.tasks.models.limits import LEASE_S
from neuron_atlas.tasks.models.outbox import Outbox, outbox_folder
from neuron_atlas.tasks.models.sqlite_journal import SqliteJournal
from tests.loopback.fixture import Loopback

ROOT = Path(__file__).parents[3]
PAID = Spent("ok", 0.25, 100, 10, 1.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def claim(journal: SqliteJournal, request: str, owner: str = "me") -> Claim:
    return asyncio.run(journal.claim(request, "gpt-4o", 1.0, owner))


def files(path: Path) -> list[Path]:
    return sorted(outbox_folder(path, "explain").glob("*"))


def test_an_answer_that_was_received_outlives_the_process_that_asked(
    provider: Loopback, path: Path
) -> None:
    script = f"""
import asyncio, os, signal
from pathlib import Path
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.client import ClientSettings, connect
from neuron_atlas.tasks.models.outbox import outbox_folder
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.sqlite_journal import SqliteJournal

path = Path({str(path)!r})

class Dying(SqliteJournal):
    async def settle(self, *told):
        os.kill(os.getpid(), signal.SIGKILL)

async def work():
    calls = Calls(Dying(path), outbox=outbox_folder(path, "explain"))
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
    journal = SqliteJournal(path)
    tally = asyncio.run(journal.tally())
    assert claim(journal, sent["client_request_id"]).kind == "answered"
    assert (tally.lost, tally.answered) == (0, 0)
    assert 0 < tally.spent_usd < 0.01
    assert files(path) == []


def test_what_the_dead_had_received_is_read_before_their_claims_lapse(path: Path) -> None:
    now = 100.0
    journal = SqliteJournal(path, clock=lambda: now)
    granted = claim(journal, "a", "dead")
    outbox = Outbox(outbox_folder(path, "explain"), "dead")
    outbox.put(granted.call, "a", "told", PAID)
    assert claim(journal, "a", "alive").kind == "busy"
    now += 2 * LEASE_S
    assert claim(journal, "a", "alive") == Claim("answered", told="told")
    tally = asyncio.run(journal.tally())
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (0, 0.25, 0)


def test_one_whose_driver_died_tells_the_next_run_what_it_received_meanwhile(path: Path) -> None:
    first = SqliteJournal(path)
    granted = claim(first, "a")
    first.close()
    second = SqliteJournal(path)
    outbox = Outbox(outbox_folder(path, "explain"), "me")
    outbox.put(granted.call, "a", "told", PAID)
    assert claim(second, "a", "other") == Claim("answered", told="told")


def test_what_is_no_answer_to_a_call_of_this_journal_is_passed_over(path: Path) -> None:
    first = SqliteJournal(path)
    calls = [claim(first, request).call for request in "abc"]
    first.close()
    folder = outbox_folder(path, "explain")
    outbox = Outbox(folder, "me")
    outbox.put(calls[0], "a", "told", PAID)
    outbox.put(calls[0], "a", "told again", PAID)
    outbox.put(calls[1], "of another journal", "told", PAID)
    outbox.put(99, "z", "told", PAID)
    outbox.put(calls[2], "c", "told", PAID)
    (file,) = files(path)
    os.truncate(file, file.stat().st_size - 1)  # It was killed while it wrote the last.
    second = SqliteJournal(path)
    answers = [asyncio.run(second.answer(request)) for request in "abcz"]
    assert answers == ["told", None, None, None]
    tally = asyncio.run(second.tally())
    assert (tally.lost, tally.spent_usd) == (2, 2.25)


def test_a_file_stays_for_as_long_as_the_journal_may_need_it(path: Path) -> None:
    first = SqliteJournal(path)
    calls = [claim(first, request).call for request in "ab"]
    outbox = Outbox(outbox_folder(path, "explain"), "me")
    outbox.put(calls[0], "a", "told", PAID)
    first.close()
    second = SqliteJournal(path)
    assert len(files(path)) == 1  # Its owner lives.
    outbox.put(calls[1], "b", "told", PAID)
    outbox.delivered(calls[0])
    outbox.close()
    assert len(files(path)) == 1  # It could not deliver the second.
    second.close()
    third = SqliteJournal(path)
    assert asyncio.run(third.answer("b")) == "told"
    assert files(path) == []


def test_one_that_delivered_everything_leaves_no_file(path: Path) -> None:
    journal = SqliteJournal(path)
    outbox = Outbox(outbox_folder(path, "explain"), "me")
    granted = claim(journal, "a")
    outbox.put(granted.call, "a", "told", PAID)
    outbox.delivered(granted.call)
    outbox.close()
    assert files(path) == []
