"""What becomes of a call that the provider turns down, in the words of many servers."""

from __future__ import annotations

import json

import pytest

from neuron_atlas.tasks.models.error_message import has_error, read_error
from neuron_atlas.tasks.models.failures import Failure, ProviderError, from_reply
from tests.tasks.models.error_bodies import BODIES, IN_REPLIES, as_text

_ENDS = {
    "key": "explain.client.api_key_env",
    "quota": "no quota left",
    "model": "explain.client.model",
    "address": "explain.client.base_url",
}


def check(read: Failure | ProviderError, expected: str, words: str) -> None:
    if isinstance(read, ProviderError):
        assert _ENDS[expected] in str(read)
        assert words in str(read)
        assert "\n" not in str(read)
        return
    marks = ("+" if read.transient else "") + ("$" if read.billed else "")
    assert read.status + marks == expected
    assert words in read.reason


@pytest.mark.parametrize("name", BODIES)
def test_an_error_is_what_its_body_says_in_the_words_of_any_server(name):
    status, body, expected, words = BODIES[name]
    read = from_reply(status, as_text(body), "gpt-4o", "MY_KEY", "explain")
    check(read, expected, words)
    if isinstance(read, Failure):
        assert read.reason.startswith(f"HTTP {status}: ")


@pytest.mark.parametrize("name", IN_REPLIES)
def test_an_error_in_a_reply_is_what_its_body_says(name):
    body, expected, words = IN_REPLIES[name]
    assert has_error(body)
    check(from_reply(None, body, "gpt-4o", "MY_KEY", "explain"), expected, words)


def test_a_completion_is_no_error():
    message = {"role": "assistant", "content": "An error occurred"}
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "error": None}
    assert not has_error(body)
    assert not has_error(body | {"choices": [{"message": message, "error": None}]})


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ("Please try again in 8.2s.", 8.2),
        ("Please try again in 1m6.5s.", 66.5),
        ("try again in 20ms", 0.02),
        ("Please retry after 20 seconds.", 20),
        ("Retry after 5 minutes", 300),
        ("Please wait for 2 h", 7200),
        ("Please try again later.", None),
        ("at most 20 seconds of audio", None),
    ],
)
def test_a_wait_in_words_is_kept(said, wait_s):
    read = from_reply(429, json.dumps({"error": {"message": said}}), "gpt-4o", "KEY", "explain")
    assert isinstance(read, Failure)
    assert read.wait_s == (wait_s if wait_s is None else pytest.approx(wait_s))


def test_geminis_delay_is_a_wait():
    _, body, _, _ = BODIES["gemini: quota a minute"]
    assert read_error(body).wait_s == 34


def test_a_key_that_an_error_repeats_is_masked_before_anything_is_cut():
    key = "loopback-key-0123456789"
    for length in range(120, 320, 7):
        read = from_reply(401, "x" * length + key, "gpt-4o", "KEY", "explain", key)
        assert key[:4] not in str(read)
        read = from_reply(400, "x" * length + key, "gpt-4o", "KEY", "explain", key)
        assert isinstance(read, Failure)
        assert key[:4] not in read.reason
