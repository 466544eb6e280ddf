"""Optional fields that a server refuses, in words of its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from PIL import Image

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import Answer, connect
from neuron_atlas.tasks.models.content import data_url, image_part, text_part
from neuron_atlas.tasks.models.request import Request
from tests.loopback.fixture import Loopback
from tests.tasks.models.asking import ask, quick

PICTURE = data_url(Image.new("RGB", (64, 32), "red"))
SCHEMA = {"type": "json_object"}


def full(text: str = "What is it?", **changes: Any) -> Request:
    """A request with every optional feature."""
    parts = [text_part(text), image_part(PICTURE, "low")]
    fields = {
        "temperature": 0,
        "seed": 0,
        "max_completion_tokens": 50,
        "logprobs": True,
        "top_logprobs": 2,
    }
    return Request([{"role": "user", "content": parts}], fields | changes, SCHEMA)


def refuses(provider: Loopback, field: str, body: object, status: int = 400, **how: Any) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    provider.misbehave("body", body=text, status=status, field=field, times=-1, **how)


def sent_with(provider: Loopback, field: str) -> list[bool]:
    return [f'"{field}"' in json.dumps(line["body"]) for line in provider.requests()]


REFUSALS = {
    "ollama: a sentence": ("response_format", {"error": "response_format not supported"}),
    "vllm: the engine": (
        "response_format",
        {"object": "error", "message": "The schema is not supported by xgrammar.", "code": 400},
    ),
    "lm studio": ("response_format", {"error": "'response_format.type' must be 'json_schema'"}),
    "deepseek": (
        "response_format",
        {"error": {"message": "This response_format type is unavailable now"}},
    ),
    "without a word": ("response_format", {"error": {"message": "Bad request"}}),
    "an empty body": ("response_format", ""),
    "html": ("response_format", "<html><title>400 Bad Request</title></html>"),
    "openai: temperature": (
        "temperature",
        {
            "error": {
                "message": "Unsupported value: 'temperature' does not support 0 with this model. "
                "Only the default (1) value is supported.",
                "param": "temperature",
                "code": "unsupported_value",
            }
        },
    ),
    "litellm: temperature": (
        "temperature",
        {
            "error": {
                "message": "litellm.UnsupportedParamsError: gpt-5 models don't support "
                "temperature=0",
                "code": "400",
            }
        },
    ),
    "mistral: seed": (
        "seed",
        {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]},
    ),
    "gemini: seed": (
        "seed",
        [{"error": {"code": 400, "message": 'Unknown name "seed": no field'}}],
    ),
    "the limit's name": (
        "max_completion_tokens",
        {"error": {"message": "Unrecognized request argument supplied: max_completion_tokens"}},
    ),
    "image detail": (
        "detail",
        {"detail": [{"loc": ["body", "messages", 0, "image_url", "detail"], "msg": "Extra"}]},
    ),
    "logprobs": ("logprobs", {"error": {"message": "logprobs are not supported"}}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_field_that_a_server_refuses_is_left_out_once_and_for_all(provider, tmp_path, name):
    field, body = REFUSALS[name]
    refuses(provider, field, body)
    account = LocalAccount(tmp_path / "journal.sqlite")

    async def many() -> list[Answer]:
        async with connect(quick(provider), CallOptions(account)) as connection:
            return await asyncio.gather(*(connection.ask(full(f"{n}?")) for n in range(6)))

    answers = asyncio.run(many())
    assert [one.status for one in answers] == ["ok"] * 6
    assert [one.omitted for one in answers] == [field] * 6
    assert sorted(one.attempts for one in answers) == [1] * 5 + [2]
    # The first request found it out for the others, which were in flight with it.
    assert sent_with(provider, field) == [True] + [False] * 6
    # So did it for later runs.
    again = ask(quick(provider), LocalAccount(tmp_path / "journal.sqlite"), full("later?"))
    assert (again.omitted, again.attempts) == (field, 1)
    assert account.tally().lost == 0


def test_a_model_without_a_system_role_gets_its_text_from_the_user(provider):
    refuses(provider, "system", {"error": {"message": "System role not supported"}})
    request = full()
    asked = Request([{"role": "system", "content": "Be brief."}, *request.messages])
    assert ask(quick(provider), request=asked).omitted == "system"
    (message,) = provider.requests()[-1]["body"]["messages"]
    assert [part.get("text") for part in message["content"]] == ["Be brief.", "What is it?", None]


def test_the_limits_other_name_is_tried(provider):
    _, body = REFUSALS["the limit's name"]
    refuses(provider, "max_completion_tokens", body)
    assert ask(quick(provider), request=full()).status == "ok"
    assert provider.requests()[-1]["body"]["max_tokens"] == 50


def test_a_limit_that_is_refused_under_both_names_is_left_out(provider):
    said = {"error": "max_tokens is too large: 50. Use max_completion_tokens of at most 20"}
    refuses(provider, "max_completion_tokens", said)
    refuses(provider, "max_tokens", said)
    answer = ask(quick(provider), request=full())
    assert (answer.status, answer.attempts) == ("ok", 3)
    assert answer.omitted == "max_completion_tokens, max_tokens"


def test_the_old_name_is_replaced_where_the_new_one_is_asked_for(provider):
    refuses(
        provider,
        "max_tokens",
        {
            "error": {
                "message": "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                "param": "max_tokens",
            }
        },
    )
    answer = ask(quick(provider), request=full(max_completion_tokens=None, max_tokens=7))
    assert (answer.status, answer.omitted) == ("ok", "max_tokens")
    assert provider.requests()[-1]["body"]["max_completion_tokens"] == 7


def test_several_refusals_are_found_out_one_after_the_other(provider):
    for name in ("ollama: a sentence", "openai: temperature", "mistral: seed", "image detail"):
        refuses(provider, *REFUSALS[name])
    answer = ask(quick(provider), request=full())
    assert (answer.status, answer.attempts) == ("ok", 5)
    assert answer.omitted == "detail, response_format, seed, temperature"


def test_a_refusal_in_a_reply_or_as_an_error_of_the_server_is_one_too(provider):
    refuses(provider, "response_format", {"error": "json_schema is not supported"}, status=200)
    assert ask(quick(provider), request=full()).omitted == "response_format"
    provider.behave()
    refuses(provider, "response_format", {"error": "failed to compile the grammar"}, status=500)
    answer = ask(quick(provider), request=full("another?"))
    assert (answer.omitted, answer.attempts) == ("response_format", 2)


def test_an_error_about_an_input_is_its_own_and_costs_the_others_nothing(provider):
    async def three() -> list[Answer]:
        async with connect(quick(provider)) as connection:
            first = await connection.ask(full("first"))
            provider.misbehave("400", match="bad", times=-1)
            return [first, await connection.ask(full("bad")), await connection.ask(full("last"))]

    answers = asyncio.run(three())
    assert [one.status for one in answers] == ["ok", "failed", "ok"]
    assert [one.omitted for one in answers] == ["", "", ""]
    # The format worked before, so the error was not about it.
    assert len(provider.requests()) == 3


def test_a_bad_input_that_comes_first_does_not_take_the_format_from_the_others(provider):
    provider.misbehave("400", match="bad", times=-1)

    async def two() -> list[Answer]:
        async with connect(quick(provider)) as connection:
            return [await connection.ask(full("bad")), await connection.ask(full("good"))]

    bad, good = asyncio.run(two())
    assert (bad.status, good.status, good.omitted) == ("failed", "ok", "")


def test_one_answer_that_fails_its_schema_is_asked_for_without_and_no_other(provider):
    said = {"error": {"message": "Failed to generate JSON", "code": "json_validate_failed"}}

    async def three() -> list[Answer]:
        async with connect(quick(provider)) as connection:
            first = await connection.ask(full("first"))
            refuses(provider, "response_format", said, match="second")
            return [first, *[await connection.ask(full(one)) for one in ("second", "third")]]

    answers = asyncio.run(three())
    assert [one.status for one in answers] == ["ok"] * 3
    assert [one.omitted for one in answers] == ["", "response_format", ""]


def test_a_feature_that_a_request_needs_is_not_left_out(provider):
    refuses(provider, *REFUSALS["logprobs"])
    request = full()
    needing = Request(
        request.messages, request.parameters, SCHEMA, required=frozenset({"logprobs"})
    )
    assert ask(quick(provider), request=needing).status == "failed"
    assert len(provider.requests()) == 1


def test_an_answer_from_before_a_refusal_is_not_paid_for_again(provider, tmp_path):
    account = LocalAccount(tmp_path / "journal.sqlite")
    ask(quick(provider), account, full("first"))
    account.database.execute("DELETE FROM features")
    refuses(provider, *REFUSALS["ollama: a sentence"])
    assert ask(quick(provider), account, full("second")).omitted == "response_format"
    assert ask(quick(provider), account, full("first")).replayed


def test_the_first_request_goes_alone_only_while_it_is_open_what_the_server_takes(provider):
    provider.misbehave("slow", times=-1, seconds=0.2)

    async def many() -> None:
        async with connect(quick(provider)) as connection:
            await asyncio.gather(*(connection.ask(full(f"{n}")) for n in range(9)))

    asyncio.run(many())
    flights = [line["in_flight"] for line in provider.requests()]
    assert flights[0] == 1
    assert max(flights) == 8
