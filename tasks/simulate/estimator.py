"""Probe a chat server: does it return usable probabilities of an answer's numbers?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.client import Collection, Connection
from neuron_atlas.tasks.models.dialogue import Dialogue
from neuron_atlas.tasks.models.logprobs import EXTRACT_NUMBERS, read_token_logprobs
from neuron_atlas.tasks.models.reasoning import answer_part
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.tokens import answer_limit
from neuron_atlas.tasks.simulate.capabilities import is_undecided
from neuron_atlas.tasks.simulate.rating_prompt import probe_format, probe_messages
from neuron_atlas.tasks.simulate.ratings import (
    expected_values,
    find_numbers,
    first_token_logprobs,
    number_probability,
)
from neuron_atlas.tasks.simulate.scale import MAX_RATING, top_of_scale

Estimator = Literal["integers", "expected"]

_TOP_LOGPROBS = (20, 5)
"""Numbers of alternatives to try: the maximum of OpenAI and vLLM, then a smaller one that other
servers accept."""
_ANSWER_TOKENS = 64
_MIN_NUMBER_PROBABILITY = 0.1
"""Minimum total probability of numbers at a number's token. If a schema forces a model to write
numbers that it finds unlikely, their relative probabilities mean nothing. This shows only on
servers that return probabilities from before the schema is applied; vLLM returns those after."""


@dataclass(frozen=True)
class ChatCapabilities:
    """Capabilities of a chat server.

    top_logprobs: alternatives that it returns for each token; 0 for none. top: of the scale for
    its numbers (`tasks.simulate.scale`).
    """

    estimator: Estimator
    top_logprobs: int = 0
    top: int = MAX_RATING

    @property
    def label(self) -> str:
        """The estimator's name in rows."""
        return self.label_of(self.estimator)

    def label_of(self, estimator: Estimator) -> str:
        """Return the name of one answer's estimator; a scale other than 0 to 10 is part of it."""
        return estimator if self.top == MAX_RATING else f"{estimator} 0-{self.top}"

    def parameters(self) -> dict[str, Any]:
        """Return the request fields that ask for log probabilities."""
        if not self.top_logprobs:
            return {}
        return {"logprobs": True, "top_logprobs": self.top_logprobs}


async def probe_estimator(
    connection: Connection | Collection,
    parameters: Mapping[str, Any],
    structured: bool,
    model: str,
) -> ChatCapabilities | Answer:
    """Request a few numbers with their log probabilities, and return what the server can do.

    parameters, structured, model: of the requests that will follow; see `Dialogue`. Returns the
    answer itself if it is inconclusive (`is_undecided`).
    """
    dialogue = Dialogue(connection, structured)
    for top_logprobs in _TOP_LOGPROBS:
        requested = ChatCapabilities("expected", top_logprobs)
        limit = {"max_completion_tokens": answer_limit(model, _ANSWER_TOKENS)}
        fields = {**parameters, **limit, **requested.parameters()}
        answer = await dialogue.ask_once(
            Request(
                probe_messages(),
                fields,
                probe_format(),
                extract=EXTRACT_NUMBERS,
                required=frozenset({"logprobs"}),
            )
        )
        if is_undecided(answer):
            return answer
        if answer.status != "failed":
            top = _readable_top(answer)
            return (
                ChatCapabilities("integers")
                if top is None
                else ChatCapabilities("expected", top_logprobs, top)
            )
    return ChatCapabilities("integers")


def _readable_top(answer: Answer) -> int | None:
    """Return the top of the scale for expected values of an answer; None if it has none.

    An answer has none without alternatives at each number, or if numbers are too unlikely there.
    """
    logprobs = read_token_logprobs(answer.kept)
    numbers = find_numbers(answer.text, answer_part(answer.text))
    if not logprobs or not numbers or max(len(one.options) for one in logprobs) < 2:
        return None
    at_numbers = first_token_logprobs(numbers, logprobs)
    tens = [
        position.token
        for (start, stop), position in zip(numbers, at_numbers, strict=True)
        if position is not None and answer.text[start:stop] == str(MAX_RATING)
    ]
    # Without a 10 in the answer, its tokens are unknown; 9 is safe.
    top = min(map(top_of_scale, tens), default=MAX_RATING - 1)
    if expected_values(answer.text, numbers, logprobs, top) is None:
        return None
    probabilities = [number_probability(one) for one in at_numbers if one is not None]
    return top if min(probabilities) >= _MIN_NUMBER_PROBABILITY else None
