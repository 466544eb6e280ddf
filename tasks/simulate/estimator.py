"""Probe a chat server: whether the numbers of an answer come with their probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.client import Collection, Connection
from neuron_atlas.tasks.models.dialogue import Dialogue
from neuron_atlas.tasks.models.logprobs import KEEP_NUMBERS, read_odds
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.simulate.capabilities import is_undecided
from neuron_atlas.tasks.simulate.rating_prompt import probe, probe_format
from neuron_atlas.tasks.simulate.ratings import (
    expected_values,
    find_numbers,
    first_odds,
    share_of_numbers,
)
from neuron_atlas.tasks.simulate.scale import HIGHEST, top_by

Estimator = Literal["integers", "expected"]

_MOST = (20, 5)
"""Alternatives at a token that are asked for: what OpenAI and vLLM give at most, and what servers
that give fewer do."""
_ANSWER_TOKENS = 64
_LEAST_SHARE = 0.1
"""Of the probability at a number's place, what numbers must have. A model that is held to numbers
by a schema, and would rather have said something else, has hardly any on them: which of them is
then likelier means nothing, and it may write them only. This is seen of servers that tell what the
model itself prefers; vLLM tells of what the schema leaves."""


@dataclass(frozen=True)
class ChatCapabilities:
    """What a chat server can do. top_logprobs: alternatives that it returns at a token, 0 for none.
    top: of the scale that it is asked to write numbers on; see `tasks.simulate.scale`."""

    estimator: Estimator
    top_logprobs: int = 0
    top: int = HIGHEST

    @property
    def label(self) -> str:
        """The estimator as rows name it."""
        return self.label_of(self.estimator)

    def label_of(self, estimator: Estimator) -> str:
        """Name the estimator of one answer for its row; a shorter scale is part of the name."""
        return estimator if self.top == HIGHEST else f"{estimator} 0-{self.top}"

    def parameters(self) -> dict[str, Any]:
        """The fields of a request that ask for it."""
        if not self.top_logprobs:
            return {}
        return {"logprobs": True, "top_logprobs": self.top_logprobs}


async def probe_estimator(
    connection: Connection | Collection, parameters: Mapping[str, Any], structured: bool
) -> ChatCapabilities | Answer:
    """Ask for a few numbers with their alternatives, and see whether they come.

    parameters, structured: of the requests that will follow; see `Dialogue`. Returns the answer
    itself if it decides nothing (see `is_undecided`).
    """
    dialogue = Dialogue(connection, structured)
    for most in _MOST:
        asked = ChatCapabilities("expected", most)
        limit = {"max_completion_tokens": _ANSWER_TOKENS}
        fields = {**parameters, **limit, **asked.parameters()}
        answer = await dialogue.ask_once(
            Request(probe(), fields, probe_format(), keep=KEEP_NUMBERS)
        )
        if is_undecided(answer):
            return answer
        if answer.status != "failed":
            top = _readable_to(answer)
            return (
                ChatCapabilities("integers")
                if top is None
                else ChatCapabilities("expected", most, top)
            )
    return ChatCapabilities("integers")


def _readable_to(answer: Answer) -> int | None:
    """The top of the scale on which an answer's numbers can be read as expected values; None where
    they do not come with the chances of others in their places."""
    odds = read_odds(answer.kept)
    numbers = find_numbers(answer.text)
    if not odds or not numbers or max(len(one.options) for one in odds) < 2:
        return None
    places = first_odds(numbers, odds)
    tens = [
        place.token
        for (start, stop), place in zip(numbers, places, strict=True)
        if place is not None and answer.text[start:stop] == str(HIGHEST)
    ]
    # Who wrote no 10 might write it in any way.
    top = min(map(top_by, tens), default=HIGHEST - 1)
    if expected_values(answer.text, numbers, odds, top) is None:
        return None
    shares = [share_of_numbers(place) for place in places if place is not None]
    return top if min(shares) >= _LEAST_SHARE else None
