import json
import math
from typing import Any

import pytest

from neuron_atlas.tasks.models.answer import Answer, from_json, read_completion, to_json
from neuron_atlas.tasks.models.logprobs import EXTRACT_NUMBERS, TokenLogprobs, read_token_logprobs
from neuron_atlas.tasks.models.request import Request, request_hash


def token(text: str, *others: tuple[str, float], chance: float = 0.5) -> dict[str, Any]:
    """As the protocol tells of a token that was said, and of what might have been."""
    told = [(text, math.log(chance)), *((other, math.log(p)) for other, p in others)]
    alternatives = [
        {"token": said, "logprob": logprob, "bytes": list(said.encode())} for said, logprob in told
    ]
    return alternatives[0] | {"top_logprobs": alternatives}


def reply(*tokens: dict[str, Any], content: str | None = None) -> str:
    said = content or "".join(one["token"] for one in tokens)
    message = {"role": "assistant", "content": said}
    choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": list(tokens)}}
    return json.dumps({"model": "m", "choices": [choice], "usage": {"prompt_tokens": 3}})


def read(text: str) -> Answer:
    answer = read_completion(text, EXTRACT_NUMBERS)
    assert isinstance(answer, Answer)
    return answer


def test_of_what_the_model_might_have_said_the_numbers_are_kept():
    said = reply(token("["), token("7", ("8", 0.25), ("seven", 0.1)), token("]"))
    (logprobs,) = read_token_logprobs(read(said).kept) or ()
    assert (logprobs.start, logprobs.token) == (1, "7")
    assert dict(logprobs.options) == pytest.approx(
        {"7": math.log(0.5), "8": math.log(0.25)}, abs=1e-4
    )


def test_a_token_is_kept_where_a_number_was_only_possible():
    (logprobs,) = read_token_logprobs(read(reply(token("1"), token(",", ("0", 0.25)))).kept)[1:]
    assert logprobs == TokenLogprobs(1, ",", (("0", round(math.log(0.25), 4)),))


def test_spaces_around_a_number_do_not_hide_it():
    (logprobs,) = read_token_logprobs(read(reply(token("["), token(" 3"), token("]"))).kept)
    assert (logprobs.start, logprobs.token, logprobs.options[0][0]) == (1, " 3", " 3")


def test_places_are_right_behind_characters_that_are_cut_in_two():
    first, second = (
        {"token": "\ufffd", "logprob": 0.0, "bytes": [byte], "top_logprobs": []}
        for byte in "é".encode()
    )
    (logprobs,) = read_token_logprobs(read(reply(first, second, token("4"), content="é4")).kept)
    assert logprobs.start == 1


def test_what_was_said_counts_also_where_it_is_not_among_the_likeliest():
    unlikely = token("2", chance=0.01) | {"top_logprobs": token("9", chance=0.9)["top_logprobs"]}
    (logprobs,) = read_token_logprobs(read(reply(unlikely)).kept)
    assert [text for text, _ in logprobs.options] == ["9", "2"]


def test_without_log_probabilities_nothing_is_kept():
    body = json.loads(reply(token("5")))
    body["choices"][0]["logprobs"] = None
    assert read(json.dumps(body)).kept is None
    assert read_token_logprobs(None) is None


def test_nothing_is_kept_unless_it_is_asked_for():
    answer = read_completion(reply(token("5")))
    assert isinstance(answer, Answer)
    assert answer.kept is None
    assert "kept" not in json.loads(to_json(answer))


def test_what_is_kept_goes_through_the_journal():
    answer = read(reply(token("5", ("6", 0.5))))
    assert answer.kept
    assert from_json(to_json(answer)) == answer


def test_an_answer_that_was_journaled_before_there_was_this_is_read():
    old = {"status": "ok", "text": "5", "reason": "", "model": "m", "attempts": 1, "usd": 0.1}
    assert from_json(json.dumps(old)).kept is None


def test_what_is_kept_and_which_server_is_meant_are_no_part_of_the_request():
    messages = [{"role": "user", "content": "rate"}]
    plain = Request(messages).body("m")
    asked = Request(messages, affinity="picture", extract=EXTRACT_NUMBERS).body("m")
    assert asked == plain
    assert request_hash(asked, "p") == request_hash(plain, "p")
