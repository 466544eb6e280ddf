"""Finds out from a server whether the numbers of an answer come with their probabilities."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tasks.llm.answer import Answer
from tasks.llm.client import Collection, Connection
from tasks.llm.logprobs import KEEP_NUMBERS, read_odds
from tasks.llm.request import Request
from tasks.simulate.rating_prompt import probe
from tasks.simulate.ratings import expected_values, find_numbers

Estimator = Literal["integers", "expected"]

_MOST = (20, 5)
"""Alternatives at a token that are asked for: what OpenAI and vLLM give at most, and what servers
that give fewer do."""
_ANSWER_TOKENS = 32
_TURNED_DOWN = re.compile(r"HTTP 4(?!08|09|29)\d\d")


@dataclass(frozen=True)
class Agreed:
    """What can be had of a server. top_logprobs: alternatives that it tells of, 0 for none."""

    estimator: Estimator
    top_logprobs: int = 0

    def parameters(self) -> dict[str, Any]:
        """The fields of a request that ask for it."""
        if not self.top_logprobs:
            return {}
        return {"logprobs": True, "top_logprobs": self.top_logprobs}


async def negotiate(
    connection: Connection | Collection, parameters: Mapping[str, Any]
) -> Agreed | Answer:
    """Ask for a few numbers with their alternatives, and see whether they come.

    parameters: of the requests that will follow. Returns what was agreed on, or the answer that
    decides nothing, such as one that waits for a batch or that there is no money for.
    """
    for most in _MOST:
        agreed = Agreed("expected", most)
        limit = {"max_completion_tokens": _ANSWER_TOKENS}
        answer = await connection.ask(
            Request(probe(), {**parameters, **limit, **agreed.parameters()}, keep=KEEP_NUMBERS)
        )
        if answer.status in ("pending", "budget", "rate_limited", "timed_out"):
            return answer
        if answer.status == "failed":
            if not _TURNED_DOWN.match(answer.reason):
                return answer
            continue
        return agreed if _are_known(answer) else Agreed("integers")
    return Agreed("integers")


def _are_known(answer: Answer) -> bool:
    """Whether each number of an answer comes with the chances of others in its place."""
    odds = read_odds(answer.kept)
    numbers = find_numbers(answer.text)
    if not odds or not numbers or max(len(one.options) for one in odds) < 2:
        return False
    return expected_values(answer.text, numbers, odds) is not None
