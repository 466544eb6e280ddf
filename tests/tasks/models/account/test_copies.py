"""Copies and merges of an account's file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import CallResult
from neuron_atlas.tasks.models.account.tables import merge, snapshot
from neuron_atlas.tasks.models.account.tally import Tally
from tests.tasks.models.account.ledgers import lease, settle


def ask(account: LocalAccount, request: str, *, usd: float, answered: bool = True) -> None:
    permit = lease(account, request, 2 * usd)
    if answered:
        result = CallResult(permit.call, "ok", answer=f'"{request}"', usd=usd)
        settle(account, "me", result)


def tally(path: Path) -> Tally:
    account = LocalAccount(path)
    try:
        return account.tally()
    finally:
        account.close()


def answers(path: Path) -> set[str]:
    with sqlite3.connect(path) as database:
        return {row[0] for row in database.execute("SELECT request_hash FROM answers")}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A journal with an answer and a call without a result."""
    account = LocalAccount(tmp_path / "here" / "journal.sqlite")
    ask(account, "a", usd=1.0)
    ask(account, "lost", usd=0.25, answered=False)
    account.close()
    return tmp_path / "here" / "journal.sqlite"


def test_a_copy_may_be_made_while_the_journal_is_in_use(tmp_path):
    account = LocalAccount(tmp_path / "journal.sqlite")
    ask(account, "a", usd=1.0)
    snapshot(tmp_path / "journal.sqlite", tmp_path / "copy.sqlite")
    ask(account, "b", usd=1.0)
    account.close()
    assert answers(tmp_path / "copy.sqlite") == {"a"}


def test_where_there_is_no_journal_the_copy_becomes_it(here, tmp_path):
    snapshot(here, tmp_path / "copy")
    there = tmp_path / "there" / "journal.sqlite"
    merge(tmp_path / "copy", there)
    assert answers(there) == {"a"}
    assert (tally(there).spent_usd, tally(there).lost) == (1.5, 1)


def test_two_that_went_on_apart_know_the_same_once_they_learned_of_each_other(here, tmp_path):
    there = tmp_path / "there" / "journal.sqlite"
    snapshot(here, tmp_path / "copy")
    merge(tmp_path / "copy", there)
    for path, request in ((here, "b"), (there, "c")):
        account = LocalAccount(path)
        ask(account, request, usd=1.0)
        account.close()

    snapshot(there, tmp_path / "copy of there")
    merge(tmp_path / "copy of there", here)
    assert answers(here) == {"a", "b", "c"}
    assert (tally(here).spent_usd, tally(here).lost) == (3.5, 1)
    merge(tmp_path / "copy of there", here)  # Again: nothing is counted twice.
    assert (tally(here).spent_usd, tally(here).lost) == (3.5, 1)


def test_a_call_that_was_lost_here_and_answered_there_is_answered(here, tmp_path):
    snapshot(here, tmp_path / "copy")
    with sqlite3.connect(tmp_path / "copy") as database:
        database.execute(
            "UPDATE calls SET outcome = 'ok', ended_at = 1, usd = 0.1 WHERE request_hash = 'lost'"
        )
    merge(tmp_path / "copy", here)
    assert tally(here).lost == 0
    assert tally(here).spent_usd == pytest.approx(1.1)


def test_batches_keep_their_calls_whatever_their_numbers_are_here(here, tmp_path):
    other = tmp_path / "other.sqlite"
    account = LocalAccount(other)
    ask(account, "batched", usd=1.0, answered=False)
    account.close()
    with sqlite3.connect(other) as database:
        (call,) = database.execute("SELECT call FROM calls").fetchone()
        database.execute(
            "INSERT INTO batches VALUES ('mine', 'explain', 'a/b', 'batch_1', 'open', 1.0)"
        )
        database.execute("INSERT INTO batched VALUES ('mine', 'batched', ?)", (call,))
    merge(other, here)
    with sqlite3.connect(here) as database:
        found = database.execute(
            "SELECT c.request_hash FROM batched b JOIN calls c ON c.call = b.call"
        ).fetchall()
        assert found == [("batched",)]
        assert database.execute("SELECT provider_id, state FROM batches").fetchall() == [
            ("batch_1", "open")
        ]
    with sqlite3.connect(other) as database:
        database.execute("UPDATE batches SET state = 'done'")
    merge(other, here)
    with sqlite3.connect(here) as database:
        assert database.execute("SELECT state FROM batches").fetchall() == [("done",)]
