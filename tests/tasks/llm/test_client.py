import asyncio
import email.utils
import logging
import math
import sqlite3
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tasks.llm.calls import Calls
from tasks.llm.client import Answer, ClientSettings, Unusable, connect, in_parallel
from tasks.llm.headers import retry_after
from tasks.llm.journal import Claim, Journal, NoJournal
from tasks.llm.prices import Price
from tasks.llm.request import Request
from tasks.llm.settings import AzureSettings, BatchSettings, LimitSettings
from tasks.llm.shared_limits import SharedLimits
from tasks.llm.sqlite_journal import SqliteJournal
from tests.loopback.fixture import Loopback
from tests.loopback.provider import DEPLOYMENT

PRICES = {"gpt-4o": Price(input=2.5, output=10.0, date="2026-04-05")}
QUESTION = Request([{"role": "user", "content": "What does the neuron like?"}], {"seed": 0})


def quick(loopback: Loopback, /, **changes: object) -> ClientSettings:
    settings = ClientSettings(base_url=loopback.base_url, first_wait_s=0.01, timeout_s=5.0)
    return replace(settings, **changes)  # type: ignore[arg-type]


def ask(
    settings: ClientSettings, journal: Journal | None = None, request: Request = QUESTION
) -> Answer:
    async def once() -> Answer:
        calls = Calls(journal or NoJournal())
        async with connect(settings, calls, PRICES) as connection:
            return await connection.ask(request)

    return asyncio.run(once())


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
    began = time.monotonic()
    answer = ask(quick(provider, timeout_s=0.2, max_attempts=2))
    assert (answer.status, answer.attempts) == ("timed_out", 2)
    assert answer.reason == "no answer within 0.2 s"
    assert time.monotonic() - began < 2


def test_a_provider_that_is_not_there_is_a_failure_that_cost_nothing(provider, tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db")
    answer = ask(quick(provider, base_url="http://127.0.0.1:1/v1", max_attempts=2), journal)
    assert (answer.status, answer.attempts) == ("failed", 2)
    assert "ConnectError" in answer.reason
    assert asyncio.run(journal.tally()).lost == 0


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
        async with connect(quick(provider, max_wait_s=0.2)) as connection:
            assert (await connection.ask(QUESTION)).status == "rate_limited"
            await asyncio.sleep(0.2)  # The limits hear of it within a moment.
            assert (await connection.ask(words("And this?"))).status == "ok"

    asyncio.run(one_after_the_other())
    first, second = (request["time"] for request in provider.requests())
    assert second - first >= 1.5


def test_waits_grow_up_to_the_limit(provider):
    provider.misbehave("429", times=9)
    ask(quick(provider, first_wait_s=0.02, max_wait_s=0.08, max_attempts=10))
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
    journal = SqliteJournal(tmp_path / "journal.db")
    with pytest.raises(Unusable, match=told) as raised:
        ask(quick(provider), journal)
    assert "\n" not in str(raised.value)
    assert len(provider.requests()) == 1
    assert asyncio.run(journal.tally()).lost == 0


def test_a_model_that_the_provider_does_not_know_is_named(provider):
    with pytest.raises(Unusable, match="'gpt-5000'"):
        ask(quick(provider, model="gpt-5000"))


def test_an_address_without_the_protocol_is_pointed_out(provider):
    with pytest.raises(Unusable, match=r"client\.base_url"):
        ask(quick(provider, base_url=provider.base_url + "/elsewhere"))


def test_a_missing_key_is_noticed_before_anything_is_sent(provider, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(Unusable, match="OPENAI_API_KEY is not set"):
        ask(quick(provider))
    monkeypatch.setenv("OPENAI_API_KEY", "two\nlines")
    with pytest.raises(Unusable, match="does not hold a key"):
        ask(quick(provider))
    assert provider.requests() == []


def test_a_key_in_the_address_is_refused_before_it_is_logged_anywhere():
    with pytest.raises(ValueError, match="OPENAI_API_KEY") as raised:
        ClientSettings(base_url="http://user:hush@127.0.0.1/v1")
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("rest", ["?api-key=hush", "#hush", "/v1?hush"])
def test_a_key_behind_the_address_is_refused_before_it_is_logged_anywhere(rest):
    with pytest.raises(ValueError, match=r"base_url: .*OPENAI_API_KEY") as raised:
        ClientSettings(base_url=f"http://127.0.0.1{rest}")
    assert "hush" not in str(raised.value)
    with pytest.raises(ValueError, match="endpoint: ") as raised:
        ClientSettings(azure=AzureSettings(f"https://mine.openai.azure.com{rest}", "2024", "a"))
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize("wrong", ["sk-proj-hush", "hush hush", "1hush", ""])
def test_a_key_in_the_place_of_its_variable_is_refused_without_repeating_it(wrong):
    with pytest.raises(ValueError, match=r"api_key_env: .*name of an environment") as raised:
        ClientSettings(api_key_env=wrong)
    assert "hush" not in str(raised.value)


@pytest.mark.parametrize(
    ("served", "is_it"),
    [
        ("gpt-4o", True),
        ("gpt-4o-2024-08-06", True),
        ("gpt-4o-mini-2024-07-18", False),
        ("gpt-4o-audio-preview", False),
        ("gpt-4", False),
    ],
)
def test_a_model_is_served_by_itself_and_by_its_dated_versions_only(served, is_it):
    assert ClientSettings(model="gpt-4o").is_served_by(served) == is_it
    assert ClientSettings(model="gpt-4o", served_as="gpt-4").is_served_by(served)


def test_an_answered_request_is_never_sent_again(provider, tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db")
    first = ask(quick(provider), journal)
    journal.close()
    again = SqliteJournal(tmp_path / "journal.db")
    second = ask(quick(provider), again)
    assert len(provider.requests()) == 1
    assert second == first
    assert second.replayed
    assert asyncio.run(again.tally()).lost == 0


@pytest.mark.parametrize("fault", ["refusal", "length", "content_filter", "filtered_request"])
def test_an_answer_that_is_no_use_was_paid_for_all_the_same(provider, tmp_path, fault):
    provider.misbehave(fault)
    journal = SqliteJournal(tmp_path / "journal.db")
    first = ask(quick(provider), journal)
    assert ask(quick(provider), journal) == first
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
    journal = SqliteJournal(tmp_path / "journal.db")
    assert ask(settings, journal).status != "ok"
    assert asyncio.run(journal.tally()).lost == maybe_billed
    provider.behave()
    assert ask(settings, journal).status == "ok"


def test_the_same_model_elsewhere_is_asked_itself_unless_it_is_the_same_provider(
    provider, tmp_path
):
    elsewhere = provider.base_url.replace("127.0.0.1", "localhost")
    journal = SqliteJournal(tmp_path / "journal.db")
    ask(quick(provider), journal)
    assert not ask(quick(provider, base_url=elsewhere), journal).replayed
    ask(quick(provider, provider="mine"), journal)
    assert ask(quick(provider, base_url=elsewhere, provider="mine"), journal).replayed


def test_the_key_is_nowhere_but_in_the_request(provider, tmp_path, monkeypatch, caplog):
    secret = "sk-a-wrong-but-secret-key"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    caplog.set_level(logging.DEBUG)
    journal = SqliteJournal(tmp_path / "journal.db")
    settings = quick(provider)
    with pytest.raises(Unusable) as raised:
        ask(settings, journal)
    shown = [str(raised.value), repr(settings), caplog.text, provider.log.read_text()]
    linked: BaseException | None = raised.value
    while linked is not None:
        shown.append(repr(linked) + repr(vars(linked)))
        linked = linked.__cause__ or linked.__context__
    journal.close()
    monkeypatch.setenv("OPENAI_API_KEY", provider.key)
    journal = SqliteJournal(tmp_path / "journal.db")
    assert ask(settings, journal).status == "ok"
    journal.close()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        shown.append("\n".join(database.iterdump()))
    kept = b"".join(path.read_bytes() for path in Path(tmp_path).iterdir())
    for key in (secret, provider.key):
        assert not any(key in text for text in shown)
        assert key.encode() not in kept


def test_a_key_that_a_gateway_repeats_in_its_error_is_blotted_out(provider):
    provider.misbehave("repeats_key")
    answer = ask(quick(provider))
    assert answer.status == "failed"
    assert answer.reason.endswith("Bearer ***")
    assert provider.key[:6] not in answer.reason


def test_settings_that_cannot_work_are_turned_down():
    with pytest.raises(ValueError, match="concurrency"):
        ClientSettings(concurrency=0)
    for wrong in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="timeout_s: must be above 0"):
            ClientSettings(timeout_s=wrong)
    for name in ("first_wait_s", "max_wait_s"):
        for wrong in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"{name}: must be 0 or more"):
                ClientSettings(**{name: wrong})
    with pytest.raises(ValueError, match="poll_s: must be above 0"):
        BatchSettings(poll_s=math.nan)


def test_azure_is_asked_by_deployment_with_its_own_key(provider, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", provider.key)
    azure = AzureSettings(provider.root, "2024-10-21", DEPLOYMENT)
    settings = quick(provider, base_url=None, azure=azure, api_key_env="AZURE_OPENAI_API_KEY")
    assert ask(settings).status == "ok"
    assert provider.requests()[0]["body"]["model"] == DEPLOYMENT
    with pytest.raises(Unusable, match="HTTP 404"):
        ask(replace(settings, azure=replace(azure, deployment="no-such")))


def test_azure_settings_that_cannot_work_are_turned_down():
    with pytest.raises(ValueError, match="deployment: must be given"):
        AzureSettings("https://mine.openai.azure.com", "2024-10-21", "")
    with pytest.raises(ValueError, match="endpoint: must be a whole address"):
        AzureSettings("mine", "2024-10-21", "a")


def test_an_answer_of_another_model_is_no_answer_but_is_paid_once(provider, tmp_path):
    provider.misbehave("wrong_model")
    journal = SqliteJournal(tmp_path / "journal.db")
    answer = ask(quick(provider), journal)
    assert (answer.status, answer.text) == ("failed", "")
    assert "answered by the model 'another-model-1' instead of 'gpt-4o'" in answer.reason
    # Once it is said that this is its name, what was paid for is used.
    answer = ask(quick(provider, served_as="another"), journal)
    assert (answer.status, answer.replayed) == ("ok", True)
    assert len(provider.requests()) == 1


def test_a_request_carries_the_hash_that_the_journal_knows_it_by(provider, tmp_path):
    ask(quick(provider), SqliteJournal(tmp_path / "journal.db"))
    with sqlite3.connect(tmp_path / "journal.db") as database:
        (known_as,) = database.execute("SELECT request_hash FROM answers").fetchone()
    assert provider.requests()[0]["client_request_id"] == known_as


def test_what_would_go_over_the_budget_is_not_sent(provider, tmp_path):
    journal = SqliteJournal(tmp_path / "journal.db", budget_usd=0.0001)
    answer = ask(quick(provider), journal)
    assert answer.status == "budget"
    assert "the budget of 0.0001 USD" in answer.reason
    assert provider.requests() == []


def test_an_answer_that_does_not_say_what_it_took_counts_as_the_most_it_can_have(
    provider, tmp_path
):
    provider.misbehave("no_usage")
    journal = SqliteJournal(tmp_path / "journal.db", budget_usd=0.01)
    request = Request(QUESTION.messages, {"max_completion_tokens": 900})
    answer = ask(quick(provider), journal, request)
    assert (answer.status, answer.tokens_out) == ("ok", 900)
    assert answer.usd == pytest.approx((answer.tokens_in * 2.5 + 9000) / 1e6)
    assert asyncio.run(journal.tally()).spent_usd == answer.usd
    assert ask(quick(provider), journal, words("And this?")).status == "budget"


def test_two_workers_that_want_the_same_request_pay_for_it_once(provider, tmp_path):
    provider.misbehave("slow", seconds=0.3)
    journal = SqliteJournal(tmp_path / "journal.db")

    async def both() -> list[Answer]:
        calls = Calls(journal)
        async with connect(quick(provider), calls) as one, connect(quick(provider), calls) as two:
            return await asyncio.gather(one.ask(QUESTION), two.ask(QUESTION))

    first, second = asyncio.run(both())
    assert first == second
    assert first.status == "ok"
    assert len(provider.requests()) == 1


def test_a_failure_that_stops_the_run_stops_all_who_share_the_journal(provider, tmp_path):
    provider.misbehave("insufficient_quota")
    journal = SqliteJournal(tmp_path / "journal.db")
    with pytest.raises(Unusable, match="no quota left"):
        ask(quick(provider), journal)
    with pytest.raises(Unusable, match="no quota left"):
        ask(quick(provider), journal, Request([{"role": "user", "content": "And this?"}]))
    assert len(provider.requests()) == 1


def test_one_that_is_turned_down_slows_all_who_share_the_limits(provider):
    provider.misbehave("429", retry_after="0.6")

    async def two_workers() -> None:
        calls = Calls(limits=SharedLimits(LimitSettings()))
        async with connect(quick(provider), calls) as one, connect(quick(provider), calls) as two:
            turned_down = asyncio.ensure_future(one.ask(QUESTION))
            await asyncio.sleep(0.2)
            await two.ask(Request([{"role": "user", "content": "And this?"}]))
            await turned_down

    asyncio.run(two_workers())
    first, *others = (request["time"] for request in provider.requests())
    assert len(others) == 2
    assert min(others) - first >= 0.55


def test_within_its_limits_a_provider_turns_nothing_down(provider):
    provider.limit(requests=40, tokens=None, window_s=60)
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
    # 2,400 a minute are 40 a second.
    times = [request["time"] for request in provider.requests()]
    assert max(times) - min(times) >= 0.6
    # It told that 40 are permitted, which was obeyed.
    assert len(times) == 30


def words(text: str) -> Request:
    return Request([{"role": "user", "content": text}], {"seed": 0})


def test_what_is_under_way_when_the_run_is_stopped_is_kept_for_it_is_paid_for(provider, tmp_path):
    provider.misbehave("slow", times=5, match="slow", seconds=0.6)
    provider.misbehave("insufficient_quota", match="poor")
    journal = SqliteJournal(tmp_path / "journal.db")
    requests = [*(words(f"slow {number}") for number in range(5)), words("poor")]

    async def all_at_once() -> None:
        async with connect(quick(provider), Calls(journal), PRICES) as connection:
            await in_parallel(connection.ask, requests, 6)

    with pytest.raises(Unusable, match="no quota left"):
        asyncio.run(all_at_once())
    assert sum(line["answered"] for line in provider.requests()) == 5
    tally = asyncio.run(journal.tally())
    assert (tally.answered, tally.lost, tally.held_usd) == (5, 0, 0)
    assert all(ask(quick(provider), journal, request).replayed for request in requests[:5])


def test_an_asker_that_is_stopped_while_it_claims_leaves_no_claim_behind(provider, tmp_path):
    class Slow(SqliteJournal):
        async def claim(self, *about: object) -> Claim:
            claim = await super().claim(*about)  # type: ignore[arg-type]
            await asyncio.sleep(0.2)
            return claim

    journal = Slow(tmp_path / "journal.db")

    async def stopped() -> None:
        async with connect(quick(provider), Calls(journal), PRICES) as connection:
            asking = asyncio.ensure_future(connection.ask(QUESTION))
            await asyncio.sleep(0.1)
            asking.cancel()

    asyncio.run(stopped())
    tally = asyncio.run(journal.tally())
    assert (tally.requests, tally.held_usd, tally.lost) == (1, 0, 0)
    assert provider.requests() == []


def test_a_field_that_only_some_servers_know_is_sent_all_the_same(provider):
    request = Request(QUESTION.messages, {"prompt_logprobs": 3})
    answer = ask(quick(provider), request=request)
    assert answer.status == "failed"
    assert "prompt_logprobs" in answer.reason
    assert provider.requests()[0]["body"]["prompt_logprobs"] == 3


def test_what_a_request_wants_kept_of_the_reply_is_kept(provider, tmp_path):
    request = Request(QUESTION.messages, keep=lambda body: body["usage"]["total_tokens"])
    journal = SqliteJournal(tmp_path / "journal.sqlite", "explain")
    first, again = (ask(quick(provider), journal, request) for _ in range(2))
    assert first.kept == again.kept == first.tokens_in + first.tokens_out
    assert again.replayed
