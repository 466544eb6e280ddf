"""What an account stores, reserves and refuses."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from neuron_atlas.tasks.artifacts.full_disk import DiskFullError
from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import (
    LEASE_S,
    CallResult,
    LeaseRequest,
    Permit,
    Refusal,
    StoredAnswer,
)
from tests.tasks.models.account.ledgers import answer, answered, exchange, lease, look_up, settle

ROOT = Path(__file__).parents[4]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(tmp_path: Path, **how: object) -> LocalAccount:
    return LocalAccount(tmp_path / "deep" / "journal.db", **how)  # type: ignore[arg-type]


def kind(reply: object) -> str:
    """permit, stored, budget, stopped or busy."""
    if isinstance(reply, Refusal):
        return reply.kind
    return reply if isinstance(reply, str) else type(reply).__name__.lower()


def test_an_answer_is_there_for_whoever_opens_the_file_next(tmp_path):
    first = opened(tmp_path)
    answer(first, "a", '{"text": "red"}')
    first.close()
    second = opened(tmp_path)
    assert look_up(second, "a", "b") == ['{"text": "red"}', None]
    assert lease(second, "a", 1.0) == StoredAnswer('{"text": "red"}')


def test_a_call_counts_as_lost_until_it_is_answered_or_known_to_be_unbilled(tmp_path):
    first = opened(tmp_path)
    lease(first, "lost", 2.0)
    settle(first, "me", answered(lease(first, "answered", 2.0), usd=0.5))
    refused = lease(first, "turned down", 2.0)
    settle(first, "me", CallResult(refused.call, "rate_limited/HTTP 429"))
    assert first.tally().lost == 0  # It is under way.
    first.close()
    second = opened(tmp_path)
    tally = second.tally()
    assert (tally.lost, tally.spent_usd) == (1, 2.5)
    # The second attempt is answered; the first may have been billed still.
    answer(second, "lost", usd=0.5)
    tally = second.tally()
    assert (tally.lost, tally.spent_usd) == (1, 3.0)


def test_the_same_request_is_sent_by_one_of_two_who_want_it_at_the_same_moment(tmp_path):
    account = opened(tmp_path)
    permit = lease(account, "a", owner="me")
    assert lease(account, "a", owner="they") == "busy"
    settle(account, "me", answered(permit, '"red"'))
    assert lease(account, "a", owner="they") == StoredAnswer('"red"')


def test_the_leases_of_the_dead_expire_and_count_as_spent(tmp_path):
    clock = Clock()
    account = opened(tmp_path, clock=clock)
    kinds = [kind(lease(account, "a", 1.0, "dead"))]
    for seconds in (LEASE_S - 1, 2):
        clock.now += seconds
        kinds.append(kind(lease(account, "a", 1.0, "alive")))
    assert kinds == ["permit", "busy", "permit"]
    assert account.tally().lost == 1


def test_the_leases_of_the_living_do_not_expire(tmp_path):
    clock = Clock()
    account = opened(tmp_path, clock=clock)
    lease(account, "a", 1.0, "slow")
    for _ in range(10):
        clock.now += LEASE_S / 2
        exchange(account, "slow")
    assert lease(account, "a", 1.0, "other") == "busy"


def test_a_late_answer_of_one_taken_for_dead_is_stored_and_no_longer_lost(tmp_path):
    clock = Clock()
    account = opened(tmp_path, clock=clock)
    slow = lease(account, "a", 1.0, "slow")
    clock.now += 2 * LEASE_S
    again = lease(account, "a", 1.0, "other")
    settle(account, "slow", answered(slow, "first", 0.25))
    settle(account, "other", answered(again, "second", 0.25))
    tally = account.tally()
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (0, 0.5, 0)
    assert look_up(account, "a") == ["first"]


def test_the_budget_is_never_exceeded_however_many_ask_at_once(tmp_path):
    account = opened(tmp_path, budget_usd=1.0)

    async def ask(number: int) -> str:
        want, owner = LeaseRequest(f"{number}", "gpt-4o", 1, 0.3), f"{number}"
        while True:
            (reply,), wait_s = await account.exchange(owner, [want])
            tally = account.tally()
            assert tally.spent_usd + tally.held_usd <= 1.0 + 1e-6
            if isinstance(reply, str):
                await asyncio.sleep(wait_s)
                continue
            if isinstance(reply, Permit):
                await asyncio.sleep(0.01)
                await account.exchange(owner, [answered(reply, usd=0.1)])
            return kind(reply)

    async def all_at_once() -> list[str]:
        return await asyncio.gather(*(ask(number) for number in range(40)))

    kinds = asyncio.run(all_at_once())
    # With 0.8 USD spent, one that may cost 0.3 no longer fits.
    assert (kinds.count("permit"), kinds.count("budget")) == (8, 32)
    assert account.tally().spent_usd == pytest.approx(0.8)


def test_money_that_the_dead_had_reserved_does_not_hold_up_the_living(tmp_path):
    clock = Clock()
    account = opened(tmp_path, budget_usd=1.0, clock=clock)
    kinds = [kind(lease(account, "a", 0.5, "dead"))]
    for seconds, usd in ((LEASE_S - 1, 0.6), (2, 0.6), (0, 0.5)):
        clock.now += seconds
        kinds.append(kind(lease(account, f"of {usd}", usd, "alive")))
    assert kinds == ["permit", "busy", "budget", "permit"]
    tally = account.tally()
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (1, 0.5, 0.5)


def test_a_call_that_has_ended_is_not_taken_for_one_under_way_by_a_restarted_account(tmp_path):
    first = opened(tmp_path)
    timed_out = CallResult(lease(first, "a", 1.0).call, "timed_out/no answer", maybe_billed=True)
    settle(first, "me", timed_out)
    first.close()
    second = opened(tmp_path, has_callers=True)
    tally = second.tally()
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (1, 1.0, 0)
    assert isinstance(lease(second, "a", 1.0), Permit)


def test_the_budget_holds_over_all_runs_and_for_its_purpose_only(tmp_path):
    first = opened(tmp_path, budget_usd=1.0)
    answer(first, "a", usd=0.9)
    lease(first, "killed", 0.05)
    first.close()
    second = opened(tmp_path, budget_usd=1.0)
    refusal = lease(second, "b", 0.1)
    assert refusal.kind == "budget"
    assert "0.0500 USD left" in refusal.reason
    second.close()
    other = opened(tmp_path, purpose="simulate", budget_usd=1.0)
    assert isinstance(lease(other, "b", 0.1), Permit)


def test_a_stopped_account_leases_nothing_more(tmp_path):
    account = opened(tmp_path)
    unusable = CallResult(lease(account, "a").call, "unusable", stop="no quota left")
    settle(account, "me", unusable)
    assert lease(account, "b") == Refusal("stopped", "no quota left")


def test_callers_that_outlive_the_account_still_settle_what_they_leased(tmp_path):
    first = opened(tmp_path)
    permit = lease(first, "a", 1.0)
    first.close()
    second = opened(tmp_path, has_callers=True)
    assert lease(second, "a", 1.0, "other") == "busy"
    for _ in range(2):
        settle(second, "me", answered(permit, usd=0.5))
    tally = second.tally()
    assert (tally.lost, tally.spent_usd, tally.held_usd) == (0, 0.5, 0)


def test_the_tally_counts_this_run_and_its_latencies(tmp_path):
    account = opened(tmp_path, budget_usd=9.0)
    for number in range(10):
        permit = lease(account, f"{number}", 0.1)
        settle(account, "me", answered(permit, usd=0.1, seconds=float(number)))
    failed = CallResult(lease(account, "failed", 0.1).call, "rate_limited/HTTP 429")
    settle(account, "me", failed)
    look_up(account, "0")
    tally = account.tally()
    assert (tally.requests, tally.answered, tally.replayed) == (11, 10, 1)
    assert (tally.tokens_in, tally.tokens_out) == (1000, 100)
    assert tally.outcomes == {"ok": 10, "rate_limited/HTTP 429": 1}
    assert [tally.latency_s(share) for share in (0.5, 0.9, 0.99)] == [5, 9, 9]
    assert tally.run_usd == tally.spent_usd == pytest.approx(1.0)


def test_an_answer_to_nothing_is_a_mistake_that_harms_nobody_else(tmp_path):
    account = opened(tmp_path)
    with pytest.raises(KeyError):
        settle(account, "me", CallResult(17, "ok", answer="{}"))
    answer(account, "a")


def test_an_unforeseen_error_reaches_its_caller_and_the_account_goes_on(tmp_path):
    account = opened(tmp_path)
    with pytest.raises(TypeError):
        lease(account, "a", "much")  # type: ignore[arg-type]
    answer(account, "b")


def test_a_process_that_dies_leaves_its_intent_and_its_answers(tmp_path):
    script = f"""
import os, signal
from neuron_atlas.tasks.artifacts.full_disk import DiskFullError
from neuron_atlas.tasks.models.account.account import LocalAccount
from tests.tasks.models.account.ledgers import answer, lease
account = LocalAccount({str(tmp_path / "journal.db")!r})
answer(account, "answered", "kept")
lease(account, "lost", 0.1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    died = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert died.returncode == -9
    account = LocalAccount(tmp_path / "journal.db")
    assert look_up(account, "answered", "lost") == ["kept", None]
    assert account.tally().lost == 1


def test_it_writes_through_to_the_disk_before_it_returns(tmp_path):
    account = opened(tmp_path)

    def setting(name: str) -> object:
        return account.database.execute(f"PRAGMA {name}").fetchone()[0]

    assert setting("journal_mode") == "wal"
    assert setting("synchronous") == 2  # FULL


def test_many_threads_and_event_loops_may_use_one_account(tmp_path):
    account = opened(tmp_path)

    def work(thread: int) -> None:
        for number in range(20):
            answer(account, f"{thread}/{number}")

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    account.close()
    with sqlite3.connect(tmp_path / "deep" / "journal.db") as database:
        assert database.execute("SELECT count(answer) FROM answers").fetchone() == (80,)


def test_a_full_disk_is_named_and_the_account_goes_on_once_there_is_room(tmp_path):
    account = opened(tmp_path)
    permit = lease(account, "a", 1.0)
    (pages,) = account.database.execute("PRAGMA page_count").fetchone()
    account.database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFullError, match=r"'journal\.db' did not fit"):
        settle(account, "me", answered(permit, '"' + 100_000 * "a" + '"'))
    account.database.execute(f"PRAGMA max_page_count = {100 * pages}")
    answer(account, "b", "kept")
    account.close()
    assert look_up(opened(tmp_path), "a", "b") == [None, "kept"]
