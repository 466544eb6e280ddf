"""Replies of real servers, sent by the provider on loopback as they are."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.answer import NO_COMPLETION, REASONING_TOO_LONG, from_json
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import Answer, ProviderError, connect
from neuron_atlas.tasks.models.request import Request
from tests.loopback.fixture import Loopback
from tests.tasks.models.asking import PRICES, QUESTION, ask, quick, words

REPLIES = Path(__file__).parent / "replies"
LIMITED = Request(QUESTION.messages, {"max_completion_tokens": 100})


def sends(provider: Loopback, name: str, times: int = -1) -> None:
    text = (REPLIES / f"{name}.json").read_text(encoding="utf-8")
    provider.misbehave("body", body=text, times=times)


def sends_body(provider: Loopback, body: object, status: int = 200, **how: object) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    provider.misbehave("body", **{"body": text, "status": status, "times": -1, **how})


def completion(content: object, usage: object = None, **message: object) -> dict[str, object]:
    said = {"role": "assistant", "content": content} | message
    return {"choices": [{"message": said, "finish_reason": "stop"}], "usage": usage}


def account_in(folder: Path, **how: object) -> LocalAccount:
    return LocalAccount(folder / "journal.sqlite", **how)  # type: ignore[arg-type]


def test_parts_of_a_text_are_joined(provider):
    sends(provider, "content-parts")
    assert json.loads(ask(quick(provider)).text)["explanation"] == "red things"
    provider.behave()
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "WRONG DRAFT"}]},
        {"type": "text", "text": "red "},
        {"type": "output_text", "text": "things"},
        {"type": "image_url", "image_url": {"url": "x"}},
    ]
    sends_body(provider, completion(parts))
    assert ask(quick(provider), request=words("parts?")).text == "red things"
    provider.behave()
    sends_body(provider, completion({"explanation": "red things"}))
    assert json.loads(ask(quick(provider), request=words("object?")).text)["explanation"]


def test_a_refusal_as_a_part_is_a_refusal(provider):
    sends_body(provider, completion([{"type": "refusal", "refusal": "I will not."}]))
    answer = ask(quick(provider))
    assert (answer.status, answer.reason) == ("refused", "I will not.")


def test_text_is_cleaned_where_it_enters_and_when_it_is_read_from_an_old_journal(
    provider, tmp_path
):
    sends(provider, "surrogate-refusal")
    account = account_in(tmp_path)
    answer = ask(quick(provider), account)
    assert (answer.status, answer.reason) == ("refused", "I can't \ufffd assist")
    account.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        # As an earlier version stored it.
        (stored,) = database.execute("SELECT answer FROM answers").fetchone()
        old = json.loads(stored) | {"reason": "I can't \ud83d assist", "text": "a\ud83d\x00b"}
        database.execute("UPDATE answers SET answer = ?", (json.dumps(old),))
    again = ask(quick(provider), account_in(tmp_path))
    assert (again.reason, again.replayed) == (answer.reason, True)
    assert again.text == "a\ufffd\ufffdb"
    assert len(provider.requests()) == 1


def test_control_characters_and_surrogates_in_any_field_can_be_encoded(provider):
    body = completion("red\x00 \ud83d\ude00 \udc00things\ttab\n")
    sends_body(provider, json.dumps(body | {"model": "gpt-4o-2\ud83d"}))
    answer = ask(quick(provider, reply_model_prefix=""))
    assert answer.text == "red\ufffd \U0001f600 \ufffdthings\ttab\n"
    assert answer.model == "gpt-4o-2\ufffd"


def test_an_answer_without_end_is_cut(provider):
    sends_body(provider, completion("x" * 3_000_000))
    assert len(ask(quick(provider)).text) == 200_000


@pytest.mark.parametrize(
    "body", ["[" * 200_000, '{"choices": ' * 50_000, "<html>Log in</html>", "", "null", "{}", "7"]
)
def test_what_is_no_completion_is_malformed_and_says_what_it_is(provider, tmp_path, body):
    sends_body(provider, body)
    answer = ask(quick(provider), account_in(tmp_path))
    assert answer.status == "malformed"
    assert answer.reason.startswith(NO_COMPLETION)
    if "Log in" in body:
        assert answer.reason.endswith("Log in")
    provider.behave()
    assert ask(quick(provider), account_in(tmp_path)).status == "ok"


def test_an_error_in_a_reply_is_a_failure_that_passes_and_costs_nothing(provider, tmp_path):
    sends(provider, "error-in-200", times=2)
    account = account_in(tmp_path, budget_usd=1.0)
    answer = ask(quick(provider, max_attempts=2), account)
    assert (answer.status, answer.attempts) == ("rate_limited", 2)
    assert answer.reason == "HTTP 429: Rate limit exceeded: free-models-per-min"
    tally = account.tally()
    assert (tally.spent_usd, tally.lost) == (0, 0)
    assert ask(quick(provider), account).status == "ok"


def test_an_error_in_a_reply_that_may_be_billed_counts_as_spent(provider, tmp_path):
    choice = {"finish_reason": "error", "error": {"code": 502, "message": "broke off"}}
    sends_body(provider, {"choices": [choice | {"message": {"content": "{"}}]}, times=1)
    account = account_in(tmp_path)
    assert ask(quick(provider), account).status == "ok"
    assert account.tally().lost == 1


def test_a_flagged_input_is_refused_and_the_others_are_answered(provider):
    body = {"error": {"code": 403, "message": "Your input was flagged"}}
    sends_body(provider, body, status=403, match="bad")
    answer = ask(quick(provider), request=words("bad"))
    assert (answer.status, answer.reason) == ("refused", "HTTP 403: Your input was flagged")
    assert ask(quick(provider), request=words("good")).status == "ok"


def test_a_refused_key_is_blamed_in_the_words_of_the_provider(provider):
    sends_body(provider, {"error": {"message": "Key has expired"}}, status=401)
    with pytest.raises(ProviderError, match=r"OPENAI_API_KEY \(HTTP 401: Key has expired\)"):
        ask(quick(provider))


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1_000_000, "completion_tokens": 60},
        {"prompt_tokens": 900, "completion_tokens": -5},
        {"prompt_tokens": 10**30, "completion_tokens": 60},
        {"prompt_tokens": 15_000_000, "completion_tokens": 60},
        {"prompt_tokens": "many", "completion_tokens": 60},
        {"prompt_tokens": 1.5, "completion_tokens": 60},
        {"prompt_tokens": True, "completion_tokens": 60},
    ],
)
def test_usage_that_cannot_be_counts_as_the_most_and_is_reported(provider, tmp_path, usage):
    sends_body(provider, completion("red things", usage))
    account = account_in(tmp_path, budget_usd=1.0)
    answer = ask(quick(provider), account, LIMITED)
    assert (answer.status, answer.tokens_out) == ("ok", 100)
    assert 0 < answer.tokens_in < 100
    assert account.tally().spent_usd == pytest.approx(answer.usd)
    (notice,) = account.tally().notices
    assert "cannot be right" in notice
    ask(quick(provider), account, Request(words("more").messages, LIMITED.parameters))
    assert len(account.tally().notices) == 1  # Said once, not once a call.


def test_usage_with_infinite_or_missing_numbers_is_not_used(provider):
    sends_body(provider, json.dumps(completion("red", {"prompt_tokens": float("inf")})))
    assert ask(quick(provider), request=LIMITED).tokens_out == 100


def test_tokens_under_other_names_are_read(provider):
    sends_body(provider, completion("red", {"input_tokens": 9, "output_tokens": "3"}))
    answer = ask(quick(provider))
    assert (answer.tokens_in, answer.tokens_out) == (9, 3)


def test_a_cost_above_the_reservation_is_booked_reported_and_reserved_from_then_on(
    provider, tmp_path
):
    sends_body(provider, completion("red", {"prompt_tokens": 4000, "completion_tokens": 100}))
    account = account_in(tmp_path, budget_usd=0.05)

    async def many() -> list[Answer]:
        async with connect(quick(provider), CallOptions(account), PRICES) as connection:
            return [
                await connection.ask(Request(words(f"{n}").messages, LIMITED.parameters))
                for n in range(9)
            ]

    answers = asyncio.run(many())
    each = (4000 * 2.5 + 100 * 10) / 1e6
    assert [one.status for one in answers] == ["ok"] * 4 + ["budget"] * 5
    assert account.tally().spent_usd == pytest.approx(4 * each)
    (notice,) = account.tally().notices
    assert "From now on" in notice
    account.close()
    # The next run knows it from the beginning.
    later = account_in(tmp_path, budget_usd=4 * each + 0.005)
    late = Request(words("late").messages, LIMITED.parameters)
    assert ask(quick(provider), later, late).status == "budget"


def test_calls_in_flight_together_do_not_correct_the_reservation_several_times(provider, tmp_path):
    sends_body(provider, completion("red", {"prompt_tokens": 400, "completion_tokens": 100}))
    account = account_in(tmp_path, budget_usd=1.0)

    async def together() -> None:
        async with connect(quick(provider), CallOptions(account), PRICES) as connection:
            await asyncio.gather(
                *(
                    connection.ask(Request(words(f"{n}").messages, LIMITED.parameters))
                    for n in range(20)
                )
            )

    asyncio.run(together())
    assert account.corrections.factor("gpt-4o") < 3
    assert len(account.tally().notices) == 1


@pytest.mark.parametrize("usd", [-2.5, 2.5e24, float("inf")])
def test_an_old_journal_with_impossible_costs_changes_no_budget(provider, tmp_path, usd):
    account = account_in(tmp_path)
    ask(quick(provider), account)
    account.close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as database:
        database.execute("UPDATE calls SET usd = ?", (usd,))
        (stored,) = database.execute("SELECT answer FROM answers").fetchone()
        old = json.loads(stored) | {"tokens_in": 10**30, "usd": usd}
        database.execute("UPDATE answers SET answer = ?", (json.dumps(old),))
    later = account_in(tmp_path, budget_usd=1.0)
    assert later.tally().spent_usd == 0
    answer = ask(quick(provider), later)
    assert (answer.status, answer.tokens_in, answer.usd) == ("ok", 0, None)


def test_answers_that_reasoning_used_up_are_advised_about_once(provider, tmp_path):
    sends(provider, "reasoning-used-all-tokens")
    account = account_in(tmp_path)
    for number in range(5):
        answer = ask(quick(provider), account, words(f"{number}"))
        assert (answer.status, answer.reason) == ("truncated", REASONING_TOO_LONG)
        assert len(account.tally().notices) == (number >= 2)
    (notice,) = account.tally().notices
    assert "explain.max_tokens" in notice


@pytest.mark.parametrize(
    ("body", "is_reasoning"),
    [
        (completion("<think>The image shows"), True),
        (completion(None, {"completion_tokens_details": {"reasoning_tokens": 400}}), True),
        (completion([{"type": "thinking", "thinking": []}]), True),
        (completion('{"explanation": "It li'), False),
        (completion(""), False),
    ],
)
def test_reasoning_is_told_from_an_answer_that_was_cut_off(provider, body, is_reasoning):
    body["choices"][0]["finish_reason"] = "length"
    sends_body(provider, body)
    answer = ask(quick(provider))
    assert answer.status == "truncated"
    assert (answer.reason == REASONING_TOO_LONG) == is_reasoning


@pytest.mark.parametrize(
    ("finish", "status"),
    [("MAX_TOKENS", "truncated"), ("SAFETY", "filtered"), ("stop", "ok"), (None, "ok")],
)
def test_an_answer_ends_for_the_reasons_of_other_providers_too(provider, finish, status):
    body = completion("red")
    body["choices"][0]["finish_reason"] = finish
    sends_body(provider, body)
    assert ask(quick(provider)).status == status


def test_a_stored_answer_ignores_what_it_does_not_know():
    assert from_json('{"status": "ok", "text": "red", "more": 1}').text == "red"
