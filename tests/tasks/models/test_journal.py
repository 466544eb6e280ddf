import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.journal import Claim, NoJournal, Spent
from neuron_atlas.tasks.models.limits import LEASE_S
from neuron_atlas.tasks.models.sqlite_journal import SqliteJournal

ROOT = Path(__file__).parents[3]
FREE = Spent("ok", 0.0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(tmp_path: Path, **how: object) -> SqliteJournal:
    return SqliteJournal(tmp_path / "deep" / "journal.db", **how)  # type: ignore[arg-type]


async def answer(journal: SqliteJournal, request: str, told: str = "{}", usd: float = 0.0) -> None:
    claim = await journal.claim(request, "gpt-4o", usd, "me")
    assert claim.kind == "granted"
    await journal.settle(claim.call, told, Spent("ok", usd, 100, 10, 1.5))


def test_an_answer_is_there_for_whoever_opens_the_journal_next(tmp_path):
    first = opened(tmp_path)
    asyncio.run(answer(first, "a", '{"text": "red"}'))
    first.close()
    second = opened(tmp_path)
    assert asyncio.run(second.answer("a")) == '{"text": "red"}'
    assert asyncio.run(second.answer("b")) is None
    claim = asyncio.run(second.claim("a", "gpt-4o", 1.0, "me"))
    assert claim == Claim("answered", told='{"text": "red"}')


def test_a_call_counts_as_lost_until_it_is_answered_or_known_to_be_unbilled(tmp_path):
    first = opened(tmp_path)

    async def begin() -> None:
        for request in ("lost", "answered", "turned down"):
            claim = await first.claim(request, "gpt-4o", 2.0, "me")
            if request == "answered":
                await first.settle(claim.call, "{}", Spent("ok", 0.5))
            if request == "turned down":
                await first.fail(claim.call, "rate_limited/HTTP 429", billed=False)

    asyncio.run(begin())
    assert asyncio.run(first.tally()).lost == 0  # It is under way.
    first.close()
    second = opened(tmp_path)
    tally = asyncio.run(second.tally())
    assert (tally.lost, tally.spent_usd) == (1, 2.5)
    # The second attempt at it is answered; the first may have been billed still.
    asyncio.run(answer(second, "lost", usd=0.5))
    tally = asyncio.run(second.tally())
    assert (tally.lost, tally.spent_usd) == (1, 3.0)


def test_the_same_request_is_sent_by_one_of_two_who_want_it_at_the_same_moment(tmp_path):
    journal = opened(tmp_path)

    async def both() -> list[str]:
        mine, theirs = await asyncio.gather(
            *(journal.claim("a", "gpt-4o", 0.0, owner) for owner in ("me", "they"))
        )
        kinds = sorted([mine.kind, theirs.kind])
        granted = mine if mine.kind == "granted" else theirs
        await journal.settle(granted.call, '"told"', FREE)
        return [*kinds, (await journal.claim("a", "gpt-4o", 0.0, "they")).kind]

    assert asyncio.run(both()) == ["busy", "granted", "answered"]


def test_the_claims_of_the_dead_lapse_and_are_counted(tmp_path):
    clock = Clock()
    journal = opened(tmp_path, clock=clock)

    async def kinds() -> list[str]:
        told = [(await journal.claim("a", "gpt-4o", 1.0, "dead")).kind]
        for seconds in (LEASE_S - 1, 2):
            clock.now += seconds
            told.append((await journal.claim("a", "gpt-4o", 1.0, "alive")).kind)
        return told

    assert asyncio.run(kinds()) == ["granted", "busy", "granted"]
    assert asyncio.run(journal.tally()).lost == 1


def test_the_claims_of_the_living_do_not_lapse(tmp_path):
    clock = Clock()
    journal = opened(tmp_path, clock=clock)

    async def claim_late() -> str:
        await journal.claim("a", "gpt-4o", 1.0, "slow")
        for _ in range(10):
            clock.now += LEASE_S / 2
            await journal.beat("slow")
        return (await journal.claim("a", "gpt-4o", 1.0, "other")).kind

    assert asyncio.run(claim_late()) == "busy"


def test_a_late_answer_of_one_taken_for_dead_is_kept_and_no_longer_lost(tmp_path):
    clock = Clock()
    journal = opened(tmp_path, clock=clock)

    async def late() -> None:
        slow = await journal.claim("a", "gpt-4o", 1.0, "slow")
        clock.now += 2 * LEASE_S
        again = await journal.claim("a", "gpt-4o", 1.0, "other")
        await journal.settle(slow.call, "first", Spent("ok", 0.25))
        await journal.settle(again.call, "second", Spent("ok", 0.25))

    asyncio.run(late())
    tally = asyncio.run(journal.tally())
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (0, 0.5, 0)
    assert asyncio.run(journal.answer("a")) == "first"


def test_the_budget_is_never_exceeded_however_many_ask_at_once(tmp_path):
    journal = opened(tmp_path, budget_usd=1.0)

    async def ask(number: int) -> str:
        while True:
            claim = await journal.claim(f"{number}", "gpt-4o", 0.3, "me")
            tally = await journal.tally()
            assert tally.spent_usd + tally.held_usd <= 1.0 + 1e-6
            if claim.kind == "busy":
                await asyncio.sleep(0.001)
                continue
            if claim.kind == "granted":
                await asyncio.sleep(0.01)
                await journal.settle(claim.call, "{}", Spent("ok", 0.1))
            return claim.kind

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(ask(number) for number in range(40)))

    kinds = asyncio.run(all_at_once())
    # With 0.8 USD spent, one that may cost 0.3 no longer fits.
    assert (kinds.count("granted"), kinds.count("over_budget")) == (8, 32)
    assert asyncio.run(journal.tally()).spent_usd == pytest.approx(0.8)


def test_money_that_the_dead_had_set_aside_does_not_hold_up_the_living(tmp_path):
    clock = Clock()
    journal = opened(tmp_path, budget_usd=1.0, clock=clock)

    async def kinds() -> list[str]:
        told = [(await journal.claim("a", "gpt-4o", 0.5, "dead")).kind]
        for seconds, usd in ((LEASE_S - 1, 0.6), (2, 0.6), (0, 0.5)):
            clock.now += seconds
            told.append((await journal.claim(f"of {usd}", "gpt-4o", usd, "alive")).kind)
        return told

    assert asyncio.run(kinds()) == ["granted", "busy", "over_budget", "granted"]
    tally = asyncio.run(journal.tally())
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (1, 0.5, 0.5)


def test_a_call_that_has_ended_is_not_taken_for_one_under_way_by_a_restarted_journal(tmp_path):
    first = opened(tmp_path)
    claim = asyncio.run(first.claim("a", "gpt-4o", 1.0, "me"))
    asyncio.run(first.fail(claim.call, "timed_out/no answer", billed=True))
    first.close()
    second = opened(tmp_path, has_callers=True)
    tally = asyncio.run(second.tally())
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (1, 1.0, 0)
    assert asyncio.run(second.claim("a", "gpt-4o", 1.0, "me")).kind == "granted"


def test_the_budget_holds_over_all_runs_and_for_its_purpose_only(tmp_path):
    first = opened(tmp_path, budget_usd=1.0)
    asyncio.run(answer(first, "a", usd=0.9))
    asyncio.run(first.claim("killed", "gpt-4o", 0.05, "me"))
    first.close()
    second = opened(tmp_path, budget_usd=1.0)
    claim = asyncio.run(second.claim("b", "gpt-4o", 0.1, "me"))
    assert claim.kind == "over_budget"
    assert "0.0500 USD left" in claim.told
    second.close()
    other = opened(tmp_path, purpose="simulate", budget_usd=1.0)
    assert asyncio.run(other.claim("b", "gpt-4o", 0.1, "me")).kind == "granted"


def test_a_stopped_journal_grants_nothing_more(tmp_path):
    journal = opened(tmp_path)
    asyncio.run(journal.stop("no quota left"))
    assert asyncio.run(journal.claim("a", "gpt-4o", 0.0, "me")) == Claim(
        "stopped", told="no quota left"
    )


def test_callers_that_outlive_the_journal_still_settle_what_they_claimed(tmp_path):
    first = opened(tmp_path)
    claim = asyncio.run(first.claim("a", "gpt-4o", 1.0, "me"))
    first.close()
    second = opened(tmp_path, has_callers=True)
    assert asyncio.run(second.claim("a", "gpt-4o", 1.0, "other")).kind == "busy"
    asyncio.run(second.settle(claim.call, "told", Spent("ok", 0.5)))
    asyncio.run(second.settle(claim.call, "told", Spent("ok", 0.5)))
    tally = asyncio.run(second.tally())
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (0, 0.5, 0)


def test_the_tally_says_what_calls_came_to(tmp_path):
    journal = opened(tmp_path, budget_usd=9.0)

    async def work() -> None:
        for number in range(10):
            claim = await journal.claim(f"{number}", "gpt-4o", 0.1, "me")
            await journal.settle(claim.call, "{}", Spent("ok", 0.1, 100, 10, float(number)))
        claim = await journal.claim("failed", "gpt-4o", 0.1, "me")
        await journal.fail(claim.call, "rate_limited/HTTP 429", billed=False)
        await journal.answer("0")

    asyncio.run(work())
    tally = asyncio.run(journal.tally())
    assert (tally.requests, tally.answered, tally.replayed) == (11, 10, 1)
    assert (tally.tokens_in, tally.tokens_out) == (1000, 100)
    assert tally.outcomes == {"ok": 10, "rate_limited/HTTP 429": 1}
    assert (tally.p50_s, tally.p90_s, tally.p99_s) == (5, 9, 9)
    assert tally.run_usd == tally.spent_usd == pytest.approx(1.0)


def test_an_answer_to_nothing_is_a_mistake_that_harms_nobody_else(tmp_path):
    journal = opened(tmp_path)
    with pytest.raises(KeyError):
        asyncio.run(journal.settle(17, "{}", FREE))
    asyncio.run(answer(journal, "a"))


def test_work_that_goes_wrong_unforeseen_is_told_and_the_journal_goes_on(tmp_path):
    journal = opened(tmp_path)

    async def work() -> None:
        with pytest.raises(TypeError):
            await asyncio.wait_for(journal.claim("a", "gpt-4o", "much", "me"), 5)  # type: ignore[arg-type]
        await asyncio.wait_for(answer(journal, "b"), 5)

    asyncio.run(work())


def test_a_process_that_dies_leaves_its_intent_and_its_answers(tmp_path):
    script = f"""
import asyncio, os, signal
from neuron_atlas.tasks.models.journal import Spent
from neuron_atlas.tasks.models.sqlite_journal import SqliteJournal
async def work():
    journal = SqliteJournal({str(tmp_path / "journal.db")!r})
    claim = await journal.claim("answered", "gpt-4o", 0.1, "me")
    await journal.settle(claim.call, "kept", Spent("ok"))
    await journal.claim("lost", "gpt-4o", 0.1, "me")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(work())
"""
    died = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert died.returncode == -9
    journal = SqliteJournal(tmp_path / "journal.db")
    assert asyncio.run(journal.answer("answered")) == "kept"
    assert asyncio.run(journal.answer("lost")) is None
    assert asyncio.run(journal.tally()).lost == 1


def test_it_writes_through_to_the_disk_before_it_returns(tmp_path):
    journal = opened(tmp_path)

    def setting(name: str) -> object:
        row = asyncio.run(
            journal._do(lambda: journal._database.execute(f"PRAGMA {name}").fetchone())
        )
        return row[0]

    assert setting("journal_mode") == "wal"
    assert setting("synchronous") == 2  # FULL


def test_many_threads_and_event_loops_may_use_one_journal(tmp_path):
    journal = opened(tmp_path)

    async def work(thread: int) -> None:
        for number in range(20):
            await answer(journal, f"{thread}/{number}")

    threads = [threading.Thread(target=lambda t=t: asyncio.run(work(t))) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    with sqlite3.connect(tmp_path / "deep" / "journal.db") as database:
        assert database.execute("SELECT count(answer) FROM answers").fetchone() == (80,)


def test_an_answer_is_kept_even_if_its_asker_is_cancelled_while_it_is_written(tmp_path):
    journal = opened(tmp_path)

    async def cancelled_while_settling() -> None:
        claim = await journal.claim("a", "gpt-4o", 0.0, "me")
        blocked = threading.Event()
        waiting = asyncio.ensure_future(journal._do(lambda: blocked.wait(5)))
        await asyncio.sleep(0.05)
        settling = asyncio.ensure_future(journal.settle(claim.call, "paid", FREE))
        await asyncio.sleep(0.05)
        settling.cancel()
        await asyncio.sleep(0)
        assert settling.cancelled()
        blocked.set()
        await waiting

    asyncio.run(cancelled_while_settling())
    assert asyncio.run(journal.answer("a")) == "paid"


def test_a_journal_of_the_first_layout_keeps_its_answers(tmp_path):
    path = tmp_path / "deep" / "journal.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE requests (request_hash TEXT PRIMARY KEY, model TEXT, open_intents INT,"
            " intended_at REAL, answer TEXT, settled_at REAL)"
        )
        database.execute("INSERT INTO requests VALUES ('a', 'gpt-4o', 0, 1, 'told', 2)")
        database.execute("INSERT INTO requests VALUES ('b', 'gpt-4o', 1, 1, NULL, NULL)")
    database.close()
    journal = opened(tmp_path)
    assert asyncio.run(journal.answer("a")) == "told"
    assert asyncio.run(journal.tally()).lost == 1


def test_no_journal_remembers_nothing():
    journal = NoJournal()

    async def ask() -> tuple[str | None, int]:
        claim = await journal.claim("a", "gpt-4o", 0.0, "me")
        await journal.settle(claim.call, "{}", FREE)
        return await journal.answer("a"), (await journal.tally()).requests

    assert asyncio.run(ask()) == (None, 0)
