import asyncio
import email.utils
import sqlite3
import time
from itertools import pairwise

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import CallResult
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import Answer, ProviderError, connect
from neuron_atlas.tasks.models.headers import retry_after
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.settings import LimitSettings
from tests.tasks.models.asking import QUESTION, ask, quick, words


def test_an_answer_comes_with_what_it_took(provider):
    answer = ask(quick(provider))
    assert answer.status == "ok"
    assert "neuron responds to" in answer.text
    assert answer.model == "gpt-4o-2024-08-06"
    assert (answer.attempts, answer.replayed) == (1, False)
    assert answer.tokens_in > 0
    assert answer.tokens_out > 0
    assert 0 < answer.seconds < 5


@pytest.mark.parametrize("fault", ["408", "409", "429", "500", "503", "reset", "half_body"])
def test_a_transient_failure_is_tried_again(provider, fault):
    provider.misbehave(fault, times=2)
    answer = ask(quick(provider))
    assert (answer.status, answer.attempts) == ("ok", 3)
    assert len(provider.requests()) == 3


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("429", "rate_limited", "HTTP 429"),
        ("500", "failed", "HTTP 500"),
        ("408", "timed_out", "HTTP 408"),
        ("reset", "failed", "connection"),
    ],
)
def test_a_failure_that_does_not_pass_ends_as_itself(provider, fault, status, reason):
    provider.misbehave(fault, times=-1)
    answer = ask(quick(provider, max_attempts=3))
    assert (answer.status, answer.attempts) == (status, 3)
    assert reason in answer.reason
    assert len(provider.requests()) == 3


def test_a_provider_that_hangs_is_not_waited_for(provider):
    provider.misbehave("hang", times=-1, seconds=5)
    answer = ask(quick(provider, timeout_s=0.2, max_attempts=2))
    assert (answer.status, answer.attempts) == ("timed_out", 2)
    assert answer.reason == "no answer within 0.2 s"


def test_a_provider_that_is_not_there_is_a_failure_that_cost_nothing(provider, tmp_path):
    account = LocalAccount(tmp_path / "journal.db")
    answer = ask(quick(provider, base_url="http://127.0.0.1:1/v1", max_attempts=2), account)
    assert (answer.status, answer.attempts) == ("failed", 2)
    assert "ConnectError" in answer.reason
    assert account.tally().lost == 0


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("refusal", "refused"),
        ("length", "truncated"),
        ("content_filter", "filtered"),
        ("filtered_request", "filtered"),
        ("invalid_json", "malformed"),
        ("empty", "malformed"),
        ("400", "failed"),
    ],
)
def test_what_would_only_happen_again_is_not_tried_again(provider, fault, status):
    provider.misbehave(fault, times=-1)
    answer = ask(quick(provider))
    assert (answer.status, answer.attempts) == (status, 1)
    assert answer.reason
    assert len(provider.requests()) == 1


@pytest.mark.parametrize("header", ["retry_after", "retry_after_ms"])
def test_the_provider_is_left_alone_for_as_long_as_it_asks(provider, header):
    provider.misbehave("429", **{header: "0.4" if header == "retry_after" else "400"})
    answer = ask(quick(provider))
    first, second = (request["time"] for request in provider.requests())
    assert answer.status == "ok"
    assert 0.4 <= second - first < 2


def test_a_wait_that_is_too_long_ends_the_request(provider):
    provider.misbehave("429", times=-1, retry_after="3600")
    answer = ask(quick(provider))
    assert (answer.status, answer.attempts) == ("rate_limited", 1)


def test_a_wait_that_is_too_long_for_the_request_holds_for_all_others(provider):
    provider.misbehave("429", retry_after="1.5")

    async def one_after_the_other() -> None:
        async with connect(quick(provider, max_backoff_s=0.2)) as connection:
            assert (await connection.ask(QUESTION)).status == "rate_limited"
            assert (await connection.ask(words("And this?"))).status == "ok"

    asyncio.run(one_after_the_other())
    first, second = (request["time"] for request in provider.requests())
    assert second - first >= 1.5


def test_waits_grow_up_to_the_limit(provider):
    provider.misbehave("429", times=9)
    ask(quick(provider, backoff_s=0.02, max_backoff_s=0.08, max_attempts=10))
    times = [request["time"] for request in provider.requests()]
    waits = [later - earlier for earlier, later in pairwise(times)]
    for wait, longest in zip(waits, [0.02, 0.04, *[0.08] * 7], strict=True):
        # Doubled without a limit, the last would be over 2.5 s.
        assert longest / 2 <= wait < longest + 1


def test_a_retry_after_may_be_a_date():
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(30, abs=2)
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("401", "OPENAI_API_KEY"),
        ("403", "OPENAI_API_KEY"),
        ("404", "client.model"),
        ("insufficient_quota", "no quota left"),
    ],
)
def test_what_no_call_can_pass_stops_everything_with_one_line_of_advice(
    provider, tmp_path, fault, told
):
    provider.misbehave(fault, times=-1)
    account = LocalAccount(tmp_path / "journal.db")
    with pytest.raises(ProviderError, match=told) as raised:
        ask(quick(provider), account)
    assert "\n" not in str(raised.value)
    assert len(provider.requests()) == 1
    assert account.tally().lost == 0


def test_a_model_that_the_provider_does_not_know_is_named(provider):
    with pytest.raises(ProviderError, match="'gpt-5000'"):
        ask(quick(provider, model="gpt-5000"))


def test_an_address_without_the_protocol_is_pointed_out(provider):
    with pytest.raises(ProviderError, match=r"client\.base_url"):
        ask(quick(provider, base_url=provider.base_url + "/elsewhere"))


def test_a_request_carries_the_hash_that_the_account_knows_it_by(provider, tmp_path):
    ask(quick(provider), LocalAccount(tmp_path / "journal.db"))
    with sqlite3.connect(tmp_path / "journal.db") as database:
        (key,) = database.execute("SELECT request_hash FROM answers").fetchone()
    assert provider.requests()[0]["client_request_id"] == key


def test_one_that_is_turned_down_slows_all_who_share_the_limits(provider):
    provider.misbehave("429", retry_after="0.6")

    class Listening(LocalAccount):
        def settle(self, result: CallResult) -> None:
            super().settle(result)
            heard.set()

    async def two_workers() -> None:
        calls = CallOptions(Listening(limits=LimitSettings()))
        async with connect(quick(provider), calls) as one, connect(quick(provider), calls) as two:
            turned_down = asyncio.ensure_future(one.ask(QUESTION))
            await asyncio.wait_for(heard.wait(), 60)
            await two.ask(Request([{"role": "user", "content": "And this?"}]))
            await turned_down

    heard = asyncio.Event()
    asyncio.run(two_workers())
    first, *others = (request["time"] for request in provider.requests())
    assert len(others) == 2
    assert min(others) - first >= 0.55


def test_within_its_limits_a_provider_turns_nothing_down(provider):
    provider.limit(requests=400, tokens=None, window_s=60)
    limits = LimitSettings(requests_per_minute=2400)
    settings = quick(provider, limits=limits, concurrency=50)

    async def many() -> list[Answer]:
        async with connect(settings) as connection:
            asks = [
                connection.ask(Request([{"role": "user", "content": f"{number}"}]))
                for number in range(30)
            ]
            return await asyncio.gather(*asks)

    assert {answer.status for answer in asyncio.run(many())} == {"ok"}
    times = [request["time"] for request in provider.requests()]
    assert len(times) == 30
    # 2,400 a minute would take 0.75 s. The provider says that it permits 400 a minute, which take
    # 4 s; a busy machine may note the first request late.
    assert max(times) - min(times) > 2


def test_a_field_that_only_some_servers_know_is_sent_all_the_same(provider):
    request = Request(QUESTION.messages, {"prompt_logprobs": 3})
    answer = ask(quick(provider), request=request)
    assert answer.status == "failed"
    assert "prompt_logprobs" in answer.reason
    assert provider.requests()[0]["body"]["prompt_logprobs"] == 3


def test_what_a_request_wants_kept_of_the_reply_is_kept(provider, tmp_path):
    request = Request(QUESTION.messages, extract=lambda body: body["usage"]["total_tokens"])
    account = LocalAccount(tmp_path / "journal.sqlite", "explain")
    first, again = (ask(quick(provider), account, request) for _ in range(2))
    assert first.kept == again.kept == first.tokens_in + first.tokens_out
    assert again.replayed
