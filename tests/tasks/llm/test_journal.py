import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tasks.llm.journal import NoJournal, SqliteJournal

ROOT = Path(__file__).parents[3]


def test_an_answer_is_there_for_whoever_opens_the_journal_next(tmp_path):
    first = SqliteJournal(tmp_path / "deep" / "journal.db")

    async def ask() -> None:
        assert await first.answer("a") is None
        await first.intend("a", "gpt-4o")
        await first.settle("a", '{"text": "red"}')

    asyncio.run(ask())
    first.close()
    second = SqliteJournal(tmp_path / "deep" / "journal.db")
    assert asyncio.run(second.answer("a")) == '{"text": "red"}'
    assert asyncio.run(second.answer("b")) is None


def test_an_intent_counts_until_it_is_answered_or_withdrawn(tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db")

    async def open_intents() -> list[int]:
        counts = [await journal.unsettled()]
        for request in ("lost", "answered", "turned down"):
            await journal.intend(request, "gpt-4o")
        counts.append(await journal.unsettled())
        await journal.settle("answered", "{}")
        await journal.withdraw("turned down")
        counts.append(await journal.unsettled())
        # The second attempt at the lost one is answered; the first may have been billed still.
        await journal.intend("lost", "gpt-4o")
        await journal.settle("lost", "{}")
        return [*counts, await journal.unsettled()]

    assert asyncio.run(open_intents()) == [0, 3, 1, 1]


def test_the_first_answer_stays(tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db")

    async def answer_twice() -> str | None:
        await journal.intend("a", "gpt-4o")
        await journal.intend("a", "gpt-4o")
        await journal.settle("a", "first")
        await journal.settle("a", "second")
        return await journal.answer("a")

    assert asyncio.run(answer_twice()) == "first"
    assert asyncio.run(journal.unsettled()) == 0


def test_an_answer_to_nothing_is_a_mistake(tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db")
    with pytest.raises(KeyError):
        asyncio.run(journal.settle("never intended", "{}"))


def test_a_process_that_dies_leaves_its_intent_and_its_answers(tmp_path):
    script = f"""
import asyncio, os, signal
from tasks.llm.journal import SqliteJournal
async def work():
    journal = SqliteJournal({str(tmp_path / "journal.db")!r})
    await journal.intend("answered", "gpt-4o")
    await journal.settle("answered", "kept")
    await journal.intend("lost", "gpt-4o")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(work())
"""
    died = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert died.returncode == -9
    journal = SqliteJournal(tmp_path / "journal.db")
    assert asyncio.run(journal.answer("answered")) == "kept"
    assert asyncio.run(journal.answer("lost")) is None
    assert asyncio.run(journal.unsettled()) == 1


def test_it_writes_through_to_the_disk_before_it_returns(tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db")

    def setting(name: str) -> object:
        row = journal._writer.submit(
            lambda: journal._database.execute(f"PRAGMA {name}").fetchone()
        ).result()
        return row[0]

    assert setting("journal_mode") == "wal"
    assert setting("synchronous") == 2  # FULL


def test_many_threads_and_event_loops_may_use_one_journal(tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db")

    async def work(thread: int) -> None:
        for number in range(20):
            await journal.intend(f"{thread}/{number}", "gpt-4o")
            await journal.settle(f"{thread}/{number}", "{}")

    threads = [threading.Thread(target=lambda t=t: asyncio.run(work(t))) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        assert database.execute("SELECT count(answer) FROM requests").fetchone() == (80,)


def test_an_answer_is_kept_even_if_its_asker_is_cancelled_while_it_is_written(tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db")

    async def cancelled_while_settling() -> None:
        await journal.intend("a", "gpt-4o")
        blocked = threading.Event()
        journal._writer.submit(blocked.wait, 5)
        settling = asyncio.ensure_future(journal.settle("a", "paid"))
        await asyncio.sleep(0.05)
        settling.cancel()
        await asyncio.sleep(0)
        assert settling.cancelled()
        blocked.set()

    asyncio.run(cancelled_while_settling())
    assert asyncio.run(journal.answer("a")) == "paid"


def test_no_journal_remembers_nothing():
    journal = NoJournal()

    async def ask() -> tuple[str | None, int]:
        await journal.intend("a", "gpt-4o")
        await journal.settle("a", "{}")
        return await journal.answer("a"), await journal.unsettled()

    assert asyncio.run(ask()) == (None, 0)
