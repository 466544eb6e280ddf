"""Batch mode against the provider on loopback."""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.batches import BatchedCall, open_batches
from neuron_atlas.tasks.models.batch import open_batch_sender, split_into_batches
from neuron_atlas.tasks.models.batch_lines import read_line
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import Answer, ClientSettings, ProviderError, connect
from neuron_atlas.tasks.models.failures import Failure, ProviderStoppedError
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.request_file import FiledRequest, RequestFile, read_request_files
from neuron_atlas.tasks.models.settings import AzureSettings, BatchSettings
from tests.loopback.fixture import ROOT, Loopback
from tests.loopback.provider import DEPLOYMENT

PRICES = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}


def settings_for(provider: Loopback, **changes: Any) -> ClientSettings:
    batch = BatchSettings(poll_s=0.05)
    return replace(ClientSettings(base_url=provider.base_url, batch=batch), **changes)


def question(number: int) -> Request:
    return Request([{"role": "user", "content": f"What about {number}?"}], {"max_tokens": 50})


def collect(
    settings: ClientSettings, account: LocalAccount, path: Path, count: int
) -> list[Answer]:
    """The answers to so many questions as the account has them; the others are spooled."""

    async def ask_all() -> list[Answer]:
        calls = CallOptions(account, file=RequestFile(path, price_share=0.5))
        async with connect(settings, calls, PRICES) as connection:
            return [await connection.ask(question(number)) for number in range(count)]

    return asyncio.run(ask_all())


def submit(settings: ClientSettings, account: LocalAccount, path: Path) -> int:
    async def work() -> int:
        async with open_batch_sender(settings, PRICES, account) as sender:
            return await sender.submit([path])

    return asyncio.run(work())


def fetch(settings: ClientSettings, account: LocalAccount) -> None:
    """Wait until no batch is open."""

    async def work() -> None:
        async with open_batch_sender(settings, PRICES, account) as sender:
            while await sender.fetch():
                await asyncio.sleep(settings.batch.poll_s)

    asyncio.run(work())


def rounds(settings: ClientSettings, account: LocalAccount, path: Path, count: int) -> list[Answer]:
    """Collect, hand in and fetch until nothing is pending."""
    for _ in range(20):
        fetch(settings, account)
        answers = collect(settings, account, path, count)
        if not path.exists():
            return answers
        submit(settings, account, path)
    raise AssertionError("it never ended")


def answered(provider: Loopback) -> Counter[str]:
    return Counter(line["digest"] for line in provider.requests() if line["answered"])


@pytest.fixture
def account(tmp_path: Path) -> LocalAccount:
    return LocalAccount(tmp_path / "journal.db")


def test_requests_are_answered_by_batch_at_half_the_price(provider, account, tmp_path):
    settings = settings_for(provider)
    path = tmp_path / "spool.jsonl"
    assert [one.status for one in collect(settings, account, path, 5)] == ["pending"] * 5
    assert provider.requests() == []
    answers = rounds(settings, account, path, 5)
    assert [one.status for one in answers] == ["ok"] * 5
    for one in answers:
        assert one.usd == pytest.approx((2.5 * one.tokens_in + 10 * one.tokens_out) / 2e6)
    assert len({line["batch"] for line in provider.requests()}) == 1
    assert account.tally().spent_usd == pytest.approx(sum(o.usd or 0 for o in answers))


def test_batches_are_split_by_count_and_by_bytes(provider, account, tmp_path):
    settings = settings_for(provider, batch=BatchSettings(max_requests=2, poll_s=0.05))
    rounds(settings, account, tmp_path / "spool.jsonl", 5)
    assert len({line["batch"] for line in provider.requests()}) == 3
    lines = [FiledRequest(str(n), 1, 1, 0.0, tmp_path, 0, 40) for n in range(5)]
    small = ClientSettings(batch=BatchSettings(max_bytes=100))
    assert [len(group) for group in split_into_batches(lines, small)] == [2, 2, 1]


def test_what_has_expired_is_handed_in_again_and_nothing_else(provider, account, tmp_path):
    provider.batches(answered_share=0.5)
    answers = rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 8)
    assert [one.status for one in answers] == ["ok"] * 8
    assert set(answered(provider).values()) == {1}
    assert account.tally().lost == 0


def test_what_is_never_answered_ends_as_timed_out(provider, account, tmp_path):
    provider.batches(answered_share=0.0)
    settings = settings_for(provider, max_attempts=2)
    answers = rounds(settings, account, tmp_path / "spool.jsonl", 3)
    assert [one.status for one in answers] == ["timed_out"] * 3
    assert answers[0].reason == "not answered by 2 batches"
    assert [one.attempts for one in answers] == [2] * 3


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("refusal", "refused"),
        ("length", "truncated"),
        ("content_filter", "filtered"),
        ("filtered_request", "filtered"),
        ("400", "failed"),
        ("wrong_model", "failed"),
    ],
)
def test_a_misbehaviour_is_the_outcome_of_its_own_request(
    provider, account, tmp_path, fault, status
):
    provider.misbehave(fault, times=-1, match="about 1?")
    answers = rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 3)
    assert [one.status for one in answers] == ["ok", status, "ok"]


def test_a_failure_that_passes_is_handed_in_again(provider, account, tmp_path):
    provider.misbehave("500", times=2, match="about 1?")
    answers = rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 3)
    assert [one.status for one in answers] == ["ok"] * 3


def test_no_batch_goes_over_the_budget(provider, tmp_path):
    account = LocalAccount(tmp_path / "journal.db", budget_usd=0.001)
    answers = rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 9)
    statuses = Counter(one.status for one in answers)
    # 50 tokens of an answer cost 0.0005 USD, by batch half of it.
    assert set(statuses) == {"ok", "budget"}
    assert account.tally().spent_usd <= 0.001
    assert sum(answered(provider).values()) == statuses["ok"]


def test_no_quota_stops_it_with_one_line(provider, account, tmp_path):
    provider.misbehave("insufficient_quota", times=-1)
    with pytest.raises(ProviderError, match="no quota left"):
        rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 3)


def test_a_batch_that_the_account_cannot_queue_says_what_to_lower(provider, account, tmp_path):
    provider.batches(most_requests=2)
    with pytest.raises(ProviderError, match=r"lower explain\.client\.batch\.max_requests"):
        rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 3)
    assert account.tally().lost == 0


def test_one_unusable_line_stops_the_run_and_leaves_no_batch_open(provider, account, tmp_path):
    settings, path = settings_for(provider), tmp_path / "spool.jsonl"
    provider.misbehave("insufficient_quota", times=1, match="about 1?")
    collect(settings, account, path, 3)
    submit(settings, account, path)
    with pytest.raises(ProviderStoppedError, match="no quota left"):
        fetch(settings, account)
    assert open_batches(account, settings.qualified_model) == []
    tally = account.tally()
    assert (tally.answered, tally.outcomes["unusable"], tally.lost, tally.held_usd) == (2, 1, 0, 0)
    assert [one.status for one in rounds(settings, account, path, 3)] == ["ok"] * 3
    assert set(answered(provider).values()) == {1}


def test_an_answer_may_hold_what_elsewhere_ends_a_line(provider, account, tmp_path):
    provider.misbehave("line_separators", times=-1)
    answers = rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 3)
    assert [one.status for one in answers] == ["ok"] * 3
    assert all(one.text.endswith("\u2028\u2029\x85") for one in answers)
    assert account.tally().lost == 0


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_a_line_that_cannot_be_read_may_have_been_paid_and_is_asked_for_again(
    provider, account, tmp_path, share
):
    settings, path = settings_for(provider), tmp_path / "spool.jsonl"
    provider.batches(torn=1, answered_share=share)
    collect(settings, account, path, 3)
    submit(settings, account, path)
    fetch(settings, account)
    assert account.tally().lost == 1
    provider.batches()
    assert [one.status for one in rounds(settings, account, path, 3)] == ["ok"] * 3
    assert sorted(answered(provider).values()) == [1, 1, 2]


def test_an_outage_while_it_waits_is_waited_through(provider, account, tmp_path):
    settings, path = settings_for(provider), tmp_path / "spool.jsonl"
    collect(settings, account, path, 3)
    submit(settings, account, path)
    provider.batches(outages=4)
    fetch(settings, account)
    assert [one.status for one in collect(settings, account, path, 3)] == ["ok"] * 3


def test_an_outage_while_it_hands_in_is_waited_through(provider, account, tmp_path):
    provider.batches(outages=3)
    answers = rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 3)
    assert [one.status for one in answers] == ["ok"] * 3
    assert len({line["batch"] for line in provider.requests()}) == 1


def test_an_outage_that_lasts_stops_the_run_and_the_next_one_goes_on(provider, account, tmp_path):
    settings, path = settings_for(provider), tmp_path / "spool.jsonl"
    collect(settings, account, path, 3)
    provider.batches(outages=1_000)
    with pytest.raises(
        ProviderStoppedError, match="no batch could be handed in, 6 times: HTTP 503"
    ):
        submit(settings, account, path)
    provider.batches(outages=3)  # The next one looks for what it does not know of, in vain.
    assert [one.status for one in rounds(settings, account, path, 3)] == ["ok"] * 3
    assert account.tally().lost == 0


def test_what_a_provider_says_of_a_batch_holds_no_part_of_the_key(provider, account, tmp_path):
    # So long that the key would be cut in two where a reason ends.
    said = f"{'x' * 293} {provider.key}"
    provider.batches(refuse="bad_batch", refuse_saying=said)
    with pytest.raises(ProviderStoppedError) as raised:
        rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 1)
    assert provider.key[:6] not in str(raised.value)
    assert "***" in str(raised.value)


def test_what_a_provider_says_of_a_line_holds_no_part_of_the_key():
    key = "loopback-key-0123456789"
    call = BatchedCall(1, 0.5)
    for told in (
        {"error": {"code": "oops", "message": f"{'x' * 280} {key}"}},
        {"response": {"status_code": 400, "body": {"error": {"message": f"{'x' * 282} {key}"}}}},
    ):
        read = read_line(told, call, ClientSettings(), PRICES, key, "explain")
        assert isinstance(read, Failure)
        assert key[:6] not in read.reason
        assert "***" in read.reason


def test_batches_of_another_model_are_left_to_it(provider, account, tmp_path):
    prices = PRICES | {"gpt-4o-mini": Price(input=0.25, output=1.0, date="2026-04-05")}
    mine = settings_for(provider)
    other = settings_for(provider, model="gpt-4o-mini")
    path = tmp_path / "spool.jsonl"
    collect(mine, account, path, 3)
    submit(mine, account, path)

    async def look() -> int:
        async with open_batch_sender(other, prices, account) as sender:
            return await sender.fetch()

    assert asyncio.run(look()) == 0
    assert len(open_batches(account, mine.qualified_model)) == 1
    assert open_batches(account, other.qualified_model) == []
    answers = rounds(mine, account, path, 3)
    for one in answers:
        assert one.usd == pytest.approx((2.5 * one.tokens_in + 10 * one.tokens_out) / 2e6)


@pytest.mark.parametrize("seconds", [0.3, 0.0])
def test_an_account_that_queues_one_batch_at_a_time_gets_all_answered(
    provider, account, tmp_path, seconds
):
    """The first batch may be under way, or answered, when the others are found refused."""
    provider.batches(at_once=1, seconds=seconds)
    settings = settings_for(
        provider, batch=BatchSettings(max_requests=1, poll_s=0.05), max_attempts=2
    )
    answers = rounds(settings, account, tmp_path / "spool.jsonl", 5)
    assert [one.status for one in answers] == ["ok"] * 5


def test_an_answer_that_does_not_say_what_it_took_costs_what_was_set_aside(
    provider, account, tmp_path
):
    provider.misbehave("no_usage", times=-1)
    settings, path = settings_for(provider), tmp_path / "spool.jsonl"
    collect(settings, account, path, 2)
    set_aside = [one.usd for one in read_request_files([path])]
    answers = rounds(settings, account, path, 2)
    assert [one.usd for one in answers] == pytest.approx(set_aside)
    assert min(set_aside) > 0
    assert account.tally().spent_usd == pytest.approx(sum(set_aside))


def test_a_batch_whose_creation_was_not_heard_of_is_found_again(provider, account, tmp_path):
    provider.batches(lose_replies=1)
    answers = rounds(settings_for(provider), account, tmp_path / "spool.jsonl", 3)
    assert [one.status for one in answers] == ["ok"] * 3
    assert len({line["batch"] for line in provider.requests()}) == 1


@pytest.mark.parametrize("moment", ["begun", "uploaded", "created"])
def test_killed_at_any_step_of_handing_in_it_goes_on_without_paying_twice(
    provider, tmp_path, moment
):
    settings = settings_for(provider)
    path, database = tmp_path / "spool.jsonl", tmp_path / "journal.db"
    first = LocalAccount(database)
    collect(settings, first, path, 4)
    first.close()
    script = f"""
import asyncio, os, signal
from pathlib import Path
import openai
from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models import batch
from neuron_atlas.tasks.models.batch import open_batch_sender
from neuron_atlas.tasks.models.settings import *
from tests.tasks.models.test_batch import PRICES

def killed(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

if {moment!r} == "begun":
    batch.BatchProvider.create = killed
elif {moment!r} == "uploaded":
    openai.resources.AsyncBatches.create = killed
else:
    batch.store_batch_id = killed

async def work():
    settings = ClientSettings(base_url={provider.base_url!r})
    async with open_batch_sender(settings, PRICES, LocalAccount({str(database)!r})) as sender:
        await sender.submit([Path({str(path)!r})])
asyncio.run(work())
"""
    died = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    again = LocalAccount(database)
    assert again.tally().lost == 0
    answers = rounds(settings, again, path, 4)
    assert [one.status for one in answers] == ["ok"] * 4
    assert set(answered(provider).values()) == {1}
    assert len(answered(provider)) == 4


def test_azure_is_spoken_to_in_its_own_way(provider, account, tmp_path, monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", provider.key)
    azure = AzureSettings(provider.root, DEPLOYMENT, "2024-10-21")
    settings = settings_for(
        provider, base_url=None, azure=azure, api_key_env="AZURE_OPENAI_API_KEY"
    )
    answers = rounds(settings, account, tmp_path / "spool.jsonl", 2)
    assert [one.status for one in answers] == ["ok"] * 2
    assert {line["body"]["model"] for line in provider.requests()} == {DEPLOYMENT}


def test_a_spool_names_each_request_once_and_keeps_what_is_to_be_sent(account, provider, tmp_path):
    path = tmp_path / "spool.jsonl"
    collect(settings_for(provider), account, path, 3)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["body"]["messages"][0]["content"] for line in lines] == [
        f"What about {number}?" for number in range(3)
    ]
