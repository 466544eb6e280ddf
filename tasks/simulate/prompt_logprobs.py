"""A simulator that reads all text tokens' activations off one pass of a model over its prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.client import (
    ClientSettings,
    Collection,
    Connection,
    Unusable,
    connect,
    in_parallel,
    read_key,
)
from neuron_atlas.tasks.models.logprobs import KeepPrompt, read_odds
from neuron_atlas.tasks.models.prices import Price, check_price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.settings import AtLeastOne, runtime
from neuron_atlas.tasks.simulate.capabilities import is_undecided, probe_server
from neuron_atlas.tasks.simulate.ratings import expected_value
from neuron_atlas.tasks.simulate.scale import HIGHEST
from neuron_atlas.tasks.simulate.simulator import (
    NOTHING,
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)
from neuron_atlas.tasks.simulate.token_list import (
    MOST_EXAMPLES,
    TAB,
    Scale,
    begins,
    count_places,
    list_numbers,
    list_tokens,
    read_scale,
    wording,
)

_KEEP_NUMBERS = KeepPrompt(TAB, Scale(HIGHEST).numbers)


@dataclass(frozen=True)
class PromptLogprobs(Simulator):
    """Settings of the simulator, and the simulator: that of Bills et al. (2023, "Language models
    can explain neurons in language models") which simulates all tokens at once.

    The model is shown an answer that it seems to have begun: the list of the text's tokens, with a
    placeholder behind each. A token's prediction is the expected value over the numbers that the
    model would rather have written there, by the log probabilities of its prompt (vLLM's
    `prompt_logprobs`). So it takes one pass and no generation. It says nothing of visual tokens.

    alternatives: tokens told of at each place, of which the numbers are read; those that are not
    among them count as impossible, and a place without any makes the row malformed. A server tells
    of no more than its --max-logprobs, which is 20 unless it is told otherwise. examples: neurons
    that the model is shown first. prices: by model.
    """

    takes_batches: ClassVar[bool] = False

    name: str = "prompt_logprobs"
    client: ClientSettings = field(default_factory=ClientSettings)
    alternatives: AtLeastOne = 20
    examples: Annotated[int, Interval(ge=0, le=MOST_EXAMPLES)] = MOST_EXAMPLES
    prices: dict[str, Price] = runtime(default_factory=dict)

    @property
    def wording(self) -> str:
        """See `Simulator`."""
        return wording()

    def check(self) -> None:
        """See `Simulator`: the model's price and the key must be there."""
        check_price(self.prices, self.client.model, "simulate.prices")
        read_key(self.client.api_key_env, "simulate")

    def probe(self, calls: Calls) -> Capabilities | None:
        """See `Simulator`: how the model's tokenizer cuts numbers."""
        scale = probe_server(self._probe, self.client, calls, self.prices)
        return None if scale is None else _shared(scale)

    def assumed(self) -> Capabilities:
        """See `Simulator`: numbers cut so that requests are longest."""
        return _shared(Scale())

    def simulate(
        self,
        questions: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: Calls,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`. Runs an event loop of its own until every question has its outcome."""
        check_price(self.prices, self.client.model, "simulate.prices")
        scale = None if capabilities is None else Scale(**capabilities.details)
        return asyncio.run(self._simulate_all(questions, catalog, calls, scale))

    async def _simulate_all(
        self,
        questions: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: Calls,
        scale: Scale | None,
    ) -> list[Prediction]:
        async with connect(self.client, calls, self.prices) as connection:
            found = scale or await self._probe(connection)
            if isinstance(found, Answer):
                undecided = replace(NOTHING, status=found.status, reason=found.reason)
                return [undecided] * len(questions)

            async def predict(question: SimulationRequest) -> Prediction:
                tokens = catalog[question.sample_id].tokens
                return await self._predict(connection, tokens, question.explanation, found)

            return await in_parallel(predict, questions, self.client.concurrency)

    async def _predict(
        self,
        connection: Connection | Collection,
        tokens: Sequence[str],
        explanation: str,
        scale: Scale,
    ) -> Prediction:
        nothing = replace(NOTHING, estimator=scale.label)
        if not tokens:
            return replace(nothing, visual=None)
        messages = list_tokens(tokens, explanation, scale, self.examples)
        answer = await connection.ask(self._request(messages, self.alternatives))
        if answer.kept is None:
            status, reason = _failure(answer)
            return replace(nothing, status=status, reason=reason)
        values = read_values(answer.kept, len(tokens), count_places(tokens, self.examples), scale)
        if isinstance(values, str):
            return replace(nothing, status="malformed", reason=values)
        return replace(nothing, visual=None, text=values)

    async def _probe(self, connection: Connection | Collection) -> Scale | Answer:
        answer = await connection.ask(self._request(list_numbers(), 1))
        places = read_odds(answer.kept)
        if places is not None:
            scale = read_scale(places)
            if scale is None:
                raise Unusable(
                    f"the tokenizer of {self.client.model!r} joins a tab with the number behind "
                    f"it, so {self.name} cannot read its numbers: take simulate=chat, or another "
                    "model"
                )
            return scale
        if is_undecided(answer):
            return answer
        raise Unusable(
            f"the server of {self.client.model!r} does not tell the log probabilities of its "
            "prompt (prompt_logprobs, return_token_ids), as vLLM does "
            f"({answer.reason or answer.status}); take such a server, or simulate=chat"
        )

    def _request(self, messages: Sequence[dict[str, Any]], alternatives: int) -> Request:
        parameters = {
            "prompt_logprobs": alternatives,
            "return_token_ids": True,
            # The last message is left open, as one that the model has begun.
            "continue_final_message": True,
            "add_generation_prompt": False,
            "temperature": 0,
            "max_completion_tokens": 1,
        }
        return Request(messages, parameters, keep=_KEEP_NUMBERS)


def read_values(kept: Any, tokens: int, places: int, scale: Scale) -> np.ndarray | str:
    """The expected value at each of the last `tokens` of all `places` of a prompt, float32
    [tokens]; or what is wrong with what was told of it.

    kept: by `KeepPrompt`. See `expected_value`.
    """
    odds = read_odds(kept) or []
    if len(odds) != places:
        return f"the prompt was cut into {len(odds)} places for a number instead of {places}"
    values = []
    for number, place in enumerate(odds[places - tokens :], start=1):
        if not begins(place.token, scale.placeholder):
            return f"at token {number} the prompt has {place.token!r} for a placeholder"
        value = expected_value(place, top=scale.top)
        if value is None:
            return (
                f"no number is among the alternatives at token {number}: raise "
                "simulate.alternatives, and the server's --max-logprobs with it"
            )
        values.append(value)
    return np.array(values, dtype=np.float32)


def _shared(scale: Scale) -> Capabilities:
    return Capabilities(scale.label, asdict(scale))


def _failure(answer: Answer) -> tuple[str, str]:
    """Status and reason of an answer that tells nothing of its prompt."""
    if answer.status in ("ok", "truncated"):
        return "malformed", "the reply does not tell the log probabilities of the prompt"
    return answer.status, answer.reason
