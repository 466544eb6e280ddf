import asyncio
from collections.abc import Sequence

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import AccountMessage, AccountReply
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import Answer, ProviderError, connect, in_parallel
from neuron_atlas.tasks.models.request import Request
from tests.tasks.models.asking import PRICES, QUESTION, ask, quick, words


def test_an_answered_request_is_never_sent_again(provider, tmp_path):
    account = LocalAccount(tmp_path / "journal.db")
    first = ask(quick(provider), account)
    account.close()
    again = LocalAccount(tmp_path / "journal.db")
    second = ask(quick(provider), again)
    assert len(provider.requests()) == 1
    assert second == first
    assert second.replayed
    assert again.tally().lost == 0


@pytest.mark.parametrize("fault", ["refusal", "length", "content_filter", "filtered_request"])
def test_an_answer_that_is_no_use_was_paid_for_all_the_same(provider, tmp_path, fault):
    provider.misbehave(fault)
    account = LocalAccount(tmp_path / "journal.db")
    first = ask(quick(provider), account)
    assert ask(quick(provider), account) == first
    assert len(provider.requests()) == 1


@pytest.mark.parametrize(
    ("fault", "maybe_billed"),
    [("429", 0), ("503", 0), ("400", 0), ("500", 2), ("hang", 2), ("invalid_json", 1)],
)
def test_a_failure_is_asked_about_again_and_counted_if_it_may_have_been_billed(
    provider, tmp_path, fault, maybe_billed
):
    provider.misbehave(fault, times=2, seconds=1)
    settings = quick(provider, max_attempts=2, timeout_s=0.3)
    account = LocalAccount(tmp_path / "journal.db")
    assert ask(settings, account).status != "ok"
    assert account.tally().lost == maybe_billed
    provider.behave()
    assert ask(settings, account).status == "ok"


def test_the_same_model_elsewhere_is_asked_itself_unless_it_is_the_same_provider(
    provider, tmp_path
):
    elsewhere = provider.base_url.replace("127.0.0.1", "localhost")
    account = LocalAccount(tmp_path / "journal.db")
    ask(quick(provider), account)
    assert not ask(quick(provider, base_url=elsewhere), account).replayed
    ask(quick(provider, provider="mine"), account)
    assert ask(quick(provider, base_url=elsewhere, provider="mine"), account).replayed


def test_an_answer_of_another_model_is_no_answer_but_is_paid_once(provider, tmp_path):
    provider.misbehave("wrong_model")
    account = LocalAccount(tmp_path / "journal.db")
    answer = ask(quick(provider), account)
    assert (answer.status, answer.text) == ("failed", "")
    assert "answered by the model 'another-model-1' instead of 'gpt-4o'" in answer.reason
    # Once it is said that this is its name, what was paid for is used.
    answer = ask(quick(provider, reply_model_prefix="another"), account)
    assert (answer.status, answer.replayed) == ("ok", True)
    assert len(provider.requests()) == 1


def test_what_would_go_over_the_budget_is_not_sent(provider, tmp_path):
    account = LocalAccount(tmp_path / "journal.db", budget_usd=0.0001)
    answer = ask(quick(provider), account)
    assert answer.status == "budget"
    assert "the budget of 0.0001 USD" in answer.reason
    assert provider.requests() == []


def test_an_answer_that_does_not_say_what_it_took_counts_as_the_most_it_can_have(
    provider, tmp_path
):
    provider.misbehave("no_usage")
    account = LocalAccount(tmp_path / "journal.db", budget_usd=0.01)
    request = Request(QUESTION.messages, {"max_completion_tokens": 900})
    answer = ask(quick(provider), account, request)
    assert (answer.status, answer.tokens_out) == ("ok", 900)
    assert answer.usd == pytest.approx((answer.tokens_in * 2.5 + 9000) / 1e6)
    assert account.tally().spent_usd == answer.usd
    assert ask(quick(provider), account, words("And this?")).status == "budget"


def test_two_workers_that_want_the_same_request_pay_for_it_once(provider, tmp_path):
    provider.misbehave("slow", seconds=0.3)
    account = LocalAccount(tmp_path / "journal.db")

    async def both() -> list[Answer]:
        calls = CallOptions(account)
        async with connect(quick(provider), calls) as one, connect(quick(provider), calls) as two:
            return await asyncio.gather(one.ask(QUESTION), two.ask(QUESTION))

    first, second = asyncio.run(both())
    assert first == second
    assert first.status == "ok"
    assert len(provider.requests()) == 1


def test_a_failure_that_stops_the_run_stops_all_who_share_the_journal(provider, tmp_path):
    provider.misbehave("insufficient_quota")
    account = LocalAccount(tmp_path / "journal.db")
    with pytest.raises(ProviderError, match="no quota left"):
        ask(quick(provider), account)
    with pytest.raises(ProviderError, match="no quota left"):
        ask(quick(provider), account, Request([{"role": "user", "content": "And this?"}]))
    assert len(provider.requests()) == 1


def test_what_is_under_way_when_the_run_is_stopped_is_kept_for_it_is_paid_for(provider, tmp_path):
    provider.misbehave("slow", times=5, match="slow", seconds=0.6)
    provider.misbehave("insufficient_quota", match="poor")
    account = LocalAccount(tmp_path / "journal.db")
    requests = [*(words(f"slow {number}") for number in range(5)), words("poor")]

    async def all_at_once() -> None:
        async with connect(quick(provider), CallOptions(account), PRICES) as connection:
            await in_parallel(connection.ask, requests, 6)

    with pytest.raises(ProviderError, match="no quota left"):
        asyncio.run(all_at_once())
    assert sum(line["answered"] for line in provider.requests()) == 5
    tally = account.tally()
    assert (tally.answered, tally.lost, tally.held_usd) == (5, 0, 0)
    assert all(ask(quick(provider), account, request).replayed for request in requests[:5])


def test_a_caller_that_is_stopped_while_it_leases_leaves_no_lease_behind(provider, tmp_path):
    class Slow(LocalAccount):
        async def exchange(
            self, owner: str, items: Sequence[AccountMessage]
        ) -> tuple[list[AccountReply], float]:
            replied = await super().exchange(owner, items)
            await asyncio.sleep(0.2)
            return replied

    account = Slow(tmp_path / "journal.db")

    async def stopped() -> None:
        async with connect(quick(provider), CallOptions(account), PRICES) as connection:
            asking = asyncio.ensure_future(connection.ask(QUESTION))
            await asyncio.sleep(0.3)
            asking.cancel()

    asyncio.run(stopped())
    tally = account.tally()
    assert (tally.requests, tally.held_usd, tally.lost) == (1, 0, 0)
    assert provider.requests() == []
