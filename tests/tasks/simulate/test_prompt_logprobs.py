"""The simulator that lists tokens, against a provider that tells of its prompts as vLLM does."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts.scored import SIMULATION_STATUSES
from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.answer import Answer, read_completion
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import ClientSettings, ProviderError
from neuron_atlas.tasks.models.logprobs import (
    ExtractPromptLogprobs,
    TokenLogprobs,
    read_token_logprobs,
)
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request_file import RequestFile
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.simulate.prompt_logprobs import PromptLogprobs, read_values
from neuron_atlas.tasks.simulate.simulator import Prediction, SimulationRequest
from neuron_atlas.tasks.simulate.token_list import (
    Scale,
    count_numbers,
    read_scale,
    simulation_messages,
)
from tests.loopback.fixture import Loopback
from tests.loopback.listing import TOKENIZERS

EXTRACT = ExtractPromptLogprobs("\t", Scale().numbers)
PRICES = {name: Price(0, 0, date="2026-11-23") for name in (*TOKENIZERS, "gpt-4o")}
TOKENS = ("A", " red", " cir", "cle", " of", " 10", " cm", ".\n", "So\t", " it", " is", ".")
CIRCLE = 'The word "circle" in the text.'
ODD_TOKENS = ("<end>", "\n", "10", "\t", "3\t4", "{?}", " ", "", "unknown", "?", "\\", "é", "🙂")


def catalog(**tokens: tuple[str, ...]) -> Catalog:
    return Catalog(
        {
            number: Sample(number, name, (), "".join(cut), cut, (), 0, 0)
            for number, (name, cut) in enumerate(tokens.items())
        }
    )


TWO = catalog(circle=TOKENS, wordless=())


def lister(provider: Loopback, model: str = "digits-8b", **changes: Any) -> PromptLogprobs:
    client = ClientSettings(model=model, base_url=provider.base_url, backoff_s=0.01, max_attempts=2)
    return replace(PromptLogprobs(client=client, prices=PRICES), **changes)


def simulate(
    provider: Loopback, *questions: SimulationRequest, samples: Catalog = TWO, **settings: Any
) -> list[Prediction]:
    return lister(provider, **settings).simulate(questions, samples, CallOptions())


def listings(provider: Loopback) -> list[dict[str, Any]]:
    """The requests but the first one, which finds out how numbers are cut."""
    return [line["body"] for line in provider.requests()][1:]


@pytest.mark.parametrize(("model", "top"), [("digits-8b", 9), ("numbers-8b", 10)])
def test_the_expected_value_at_every_token_is_read_off_one_pass(provider, model, top):
    (said,) = simulate(provider, SimulationRequest(CIRCLE, 0), model=model)
    expected = [top * (0.87 if token in (" cir", "cle") else 0.03) for token in TOKENS]
    np.testing.assert_allclose(said.text, expected, rtol=1e-3)
    assert said.text.dtype == np.float32
    assert (said.visual, said.status) == (None, "ok")
    (body,) = listings(provider)
    assert (body["prompt_logprobs"], body["max_completion_tokens"]) == (20, 1)


def test_what_the_tokenizer_does_to_numbers_decides_the_scale_and_what_stands_for_them(provider):
    """Of digits-8b "10" is two tokens; numbers-8b puts a tab together with letters behind it."""
    digits, numbers = (lister(provider, model) for model in list(TOKENIZERS)[:2])
    probed = [digits.probe(CallOptions()), numbers.probe(CallOptions())]
    assert [found.estimator for found in probed] == [
        "expected 0-9, unknown as placeholder",
        "expected 0-10, ? as placeholder",
    ]
    provider.forget()
    for lists, found, top in ((digits, probed[0], 9), (numbers, probed[1], 10)):
        (said,) = lists.simulate([SimulationRequest(CIRCLE, 0)], TWO, CallOptions(), found)
        assert said.estimator == found.estimator
        told = provider.requests()[-1]["body"]["messages"]
        assert f"to {top} (as active" in told[0]["content"]
    assert len(provider.requests()) == 2  # Nothing is probed again.


def test_a_tokenizer_that_joins_a_number_with_its_tab_is_refused_in_words(provider):
    with pytest.raises(
        ProviderError, match=r"'joined-8b' merges a tab with the number.*simulate=chat"
    ):
        lister(provider, "joined-8b").probe(CallOptions())


def test_tokens_of_any_kind_have_their_own_place(provider):
    odd = catalog(odd=ODD_TOKENS)
    for model in ("digits-8b", "numbers-8b"):
        (said,) = simulate(
            provider, SimulationRequest('The word "unknown".', 0), samples=odd, model=model
        )
        assert said.status == "ok", said.reason
        assert np.flatnonzero(said.text > 5).tolist() == [ODD_TOKENS.index("unknown")]


def test_an_explanation_without_words_is_asked_as_one_of_which_nothing_is_known(provider):
    empty, told = simulate(provider, SimulationRequest("", 0), SimulationRequest(CIRCLE, 0))
    assert empty.text.max() < 1 < told.text.max()
    last = [body["messages"][-2]["content"] for body in listings(provider)]
    assert sorted(last) == [
        "Neuron 3. Nothing is known about it.",
        f"Neuron 3. This is what is said to excite it: {CIRCLE}",
    ]


def test_a_sample_without_text_is_not_asked_about(provider):
    (nothing,) = simulate(provider, SimulationRequest(CIRCLE, 1))
    assert (nothing.visual, len(nothing.text), nothing.status) == (None, 0, "ok")
    assert listings(provider) == []


def test_the_last_message_is_one_that_the_model_has_begun(provider):
    simulate(provider, SimulationRequest(CIRCLE, 0), examples=1)
    (body,) = listings(provider)
    assert [message["role"] for message in body["messages"]] == [
        *("system", "user", "assistant", "user", "assistant")
    ]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    listed = body["messages"][-1]["content"].splitlines()
    assert listed[1:4] == ["A\tunknown", " red\tunknown", " cir\tunknown"]
    assert listed[8:10] == [".\\n\tunknown", "So\\t\tunknown"]
    shown = body["messages"][2]["content"]
    assert "unknown" in shown
    assert " dogs\t9" in shown  # Ten of ten, on a scale that ends with 9.


def test_a_server_that_tells_nothing_of_its_prompts_is_refused_in_words(provider):
    provider.misbehave("without_prompt_logprobs")
    with pytest.raises(ProviderError, match=r"does not return the log probabilities of its prompt"):
        lister(provider).probe(CallOptions())
    with pytest.raises(
        ProviderError, match=r"Unrecognized request argument supplied: .*simulate=chat"
    ):
        lister(provider, "gpt-4o").probe(CallOptions())


@pytest.mark.parametrize("fault", ["409", "429"])
def test_a_server_that_fails_for_now_is_not_refused(provider, fault):
    provider.misbehave(fault, times=-1)
    assert lister(provider).probe(CallOptions()) is None


def test_where_nothing_is_sent_every_question_is_one_request(provider, tmp_path):
    calls = CallOptions(file=RequestFile(tmp_path / "spool.jsonl", 1.0))
    questions = [SimulationRequest(said, 0) for said in (CIRCLE, "", "other")]
    lists = lister(provider)
    rehearsed = lists.simulate(questions, TWO, calls, lists.assumed_capabilities())
    assert {one.status for one in rehearsed} == {"pending"}
    assert len((tmp_path / "spool.jsonl").read_text().splitlines()) == 3
    assert provider.requests() == []


def test_more_alternatives_than_the_server_tells_of_fail_with_what_it_says(provider):
    (failed,) = simulate(provider, SimulationRequest(CIRCLE, 0), top_logprobs=21)
    assert failed.status == "failed"
    assert "greater than max allowed: 20" in failed.reason


@pytest.mark.parametrize("fault", ["500", "without_prompt_logprobs"])
def test_a_reply_that_cannot_be_used_is_a_row_with_its_reason(provider, fault):
    lists = lister(provider)
    found = lists.probe(CallOptions())
    provider.misbehave(fault, times=2, match="circle")
    failed, fine = lists.simulate(
        [SimulationRequest(CIRCLE, 0), SimulationRequest("", 0)], TWO, CallOptions(), found
    )
    assert failed.status in SIMULATION_STATUSES
    assert (failed.status == "ok", failed.reason == "", fine.status) == (False, False, "ok")
    assert len(failed.text) == 0


def test_a_place_at_which_no_number_is_seen_makes_the_row_malformed_and_no_zero(provider):
    """The likeliest of all is another word, and one alternative is all that is told."""
    (few,) = simulate(provider, SimulationRequest(CIRCLE, 0), top_logprobs=1)
    assert few.status == "malformed"
    assert few.reason.startswith("no number is among the alternatives at token 1: raise simulate.")


def test_what_is_read_off_a_prompt_is_journaled_and_asked_once(provider, tmp_path):
    account = LocalAccount(tmp_path / "journal.sqlite", "simulate")
    first, again = (
        lister(provider).simulate([SimulationRequest(CIRCLE, 0)], TWO, CallOptions(account))
        for _ in range(2)
    )
    assert first[0].text.tolist() == again[0].text.tolist()
    assert len(provider.requests()) == 2


REPLY = (Path(__file__).parent / "vllm-0.32-reply.json").read_text(encoding="utf-8")
"""What a server of vLLM 0.32 said of the bundled subject's prompt: its last two lines, and of the
alternatives the likeliest and the numbers."""


def test_a_reply_of_vllm_itself_is_read():
    answer = read_completion(REPLY, EXTRACT)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.model) == ("truncated", "s")  # One token, which nobody reads.
    first, second = read_token_logprobs(answer.kept)
    assert (first.token, second.token) == ("u", "u")  # Of "unknown", in its vocabulary of scenes.
    assert {text for text, _ in first.options} == {"3", "6", "7"}
    chances = {6: math.exp(-10.5827), 7: math.exp(-10.9261), 3: math.exp(-10.981)}
    by_hand = sum(n * p for n, p in chances.items()) / sum(chances.values())
    assert read_values(answer.kept, 2, 2, Scale(9)) == pytest.approx([by_hand, 5.43743], abs=1e-4)


def test_a_reply_without_the_prompts_tokens_is_not_guessed_at():
    for name in ("prompt_logprobs", "prompt_token_ids"):
        answer = read_completion(json.dumps(json.loads(REPLY) | {name: None}), EXTRACT)
        assert isinstance(answer, Answer)
        assert answer.kept is None


def logprobs(token: str, **chances: float) -> TokenLogprobs:
    options = {name.removeprefix("n"): chance for name, chance in chances.items()}
    return TokenLogprobs(0, token, tuple((text, math.log(p)) for text, p in options.items()))


def kept(*places: TokenLogprobs) -> list[Any]:
    return [[one.start, one.token, [list(option) for option in one.options]] for one in places]


def test_the_expected_value_is_over_the_numbers_that_are_seen_as_bills_and_others_have_it():
    """By hand: 0.1 of 0, 0.3 of 4 and 0.1 of 10 are (1.2 + 1) / 0.5; the likeliest is 4, and the
    mean of all that is told, with what is no number as 0, would be 2.2."""
    place = logprobs("unknown", unknown=0.5, n0=0.1, n4=0.3, n10=0.1)
    assert read_values(kept(place), 1, 1, Scale()) == pytest.approx([4.4])


def test_on_a_scale_that_ends_with_nine_a_ten_is_no_number():
    place = logprobs("unknown", n9=0.2, n10=0.6, n3=0.2)
    assert read_values(kept(place), 1, 1, Scale(9)) == pytest.approx([6.0])


def test_two_tokens_of_one_number_are_one_number():
    options = ((" 5", math.log(0.25)), ("5", math.log(0.25)), ("1", math.log(0.5)))
    assert read_values(kept(TokenLogprobs(0, "?", options)), 1, 1, Scale(10, "?")) == pytest.approx(
        [3.0]
    )


def test_places_that_are_not_those_of_the_list_are_told_instead_of_shifted():
    one = logprobs("unknown", n1=1.0)
    assert "2 positions for a number instead of 3" in read_values(kept(one, one), 1, 3, Scale())
    said = read_values(kept(one, logprobs("7", n1=1.0)), 2, 2, Scale())
    assert said == "at token 2 the prompt has '7' for a placeholder"


def digits(*more: str) -> list[TokenLogprobs]:
    return [TokenLogprobs(0, token, ()) for token in (*map(str, range(10)), *more)]


@pytest.mark.parametrize(
    ("behind_tabs", "scale"),
    [
        (digits("10", "unknown", "?", "_"), Scale(10, "unknown")),
        (digits("1", "un", "?", "_"), Scale(9, "unknown")),
        (digits("10", "?\n", "_"), Scale(10, "?")),
        (digits("1", "_"), Scale(9, "_")),
        (digits("10"), None),
        (digits("2", "unknown"), None),
        (digits()[:-1], None),
        ([], None),
    ],
)
def test_the_scale_is_read_from_how_numbers_are_cut(behind_tabs, scale):
    assert read_scale(behind_tabs) == scale


def test_the_places_of_a_prompt_are_those_of_the_examples_and_of_the_tokens():
    for examples in (0, 1, 2):
        messages = simulation_messages(TOKENS, CIRCLE, Scale(), examples)
        tabs = sum(message["content"].count("\t") for message in messages)
        assert tabs == count_numbers(TOKENS, examples)
        assert len(messages) == 3 + 2 * examples
