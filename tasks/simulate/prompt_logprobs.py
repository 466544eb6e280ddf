"""Simulate all text tokens in one forward pass, from the log probabilities of the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import (
    ClientSettings,
    Collection,
    Connection,
    ProviderError,
    connect,
    in_parallel,
    read_key,
)
from neuron_atlas.tasks.models.logprobs import ExtractPromptLogprobs, read_token_logprobs
from neuron_atlas.tasks.models.prices import Price, check_price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.settings import AtLeastOne, not_hashed
from neuron_atlas.tasks.simulate.capabilities import is_undecided, probe_server
from neuron_atlas.tasks.simulate.ratings import expected_value
from neuron_atlas.tasks.simulate.scale import MAX_RATING
from neuron_atlas.tasks.simulate.simulator import (
    NO_PREDICTION,
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)
from neuron_atlas.tasks.simulate.token_list import (
    MOST_EXAMPLES,
    TAB,
    Scale,
    count_numbers,
    number_probe_messages,
    prompt_hash,
    read_scale,
    simulation_messages,
    starts_placeholder,
)

_EXTRACT_NUMBERS = ExtractPromptLogprobs(TAB, Scale(MAX_RATING).numbers)


@dataclass(frozen=True)
class PromptLogprobs(Simulator):
    """All-at-once simulator of Bills et al. (2023, "Language models can explain neurons in language
    models"), with its settings.

    The prompt ends with a partial answer of the assistant: the list of the text's tokens, each
    followed by a placeholder. A token's prediction is the expected value of the number at its
    placeholder, from the log probabilities of the prompt (vLLM's `prompt_logprobs`). This takes one
    forward pass and no generation. Visual tokens are not predicted.

    top_logprobs: log probabilities to request at each placeholder. Numbers not among them have
    probability 0; a placeholder without any number makes the row malformed. A server returns at
    most --max-logprobs of them (default 20). examples: number of few-shot neurons in the prompt.
    prices: by model name; a model without a price is refused.
    """

    takes_batches: ClassVar[bool] = False

    name: str = "prompt_logprobs"
    client: ClientSettings = field(default_factory=ClientSettings)
    top_logprobs: AtLeastOne = 20
    examples: Annotated[int, Interval(ge=0, le=MOST_EXAMPLES)] = MOST_EXAMPLES
    prices: dict[str, Price] = not_hashed(default_factory=dict)

    @property
    def prompt_hash(self) -> str:
        """See `Simulator`."""
        return prompt_hash()

    def check(self) -> None:
        """See `Simulator`. Raises ProviderError if the model's price or the API key is missing."""
        check_price(self.prices, self.client.model, "simulate.prices")
        read_key(self.client.api_key_env, "simulate")

    def probe(self, calls: CallOptions) -> Capabilities | None:
        """See `Simulator`: how the model's tokenizer splits numbers."""
        scale = probe_server(self._probe, self.client, calls, self.prices)
        return None if scale is None else _as_plain(scale)

    def assumed_capabilities(self) -> Capabilities:
        """See `Simulator`: the scale with the longest requests."""
        return _as_plain(Scale())

    def simulate(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        """See `Simulator`. Runs its own event loop. Raises ProviderError."""
        check_price(self.prices, self.client.model, "simulate.prices")
        scale = None if capabilities is None else Scale(**capabilities.details)
        return asyncio.run(self._simulate_all(requests, catalog, calls, scale))

    async def _simulate_all(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        scale: Scale | None,
    ) -> list[Prediction]:
        async with connect(self.client, calls, self.prices) as connection:
            found = scale or await self._probe(connection)
            if isinstance(found, Answer):
                undecided = replace(NO_PREDICTION, status=found.status, reason=found.reason)
                return [undecided] * len(requests)

            async def predict(request: SimulationRequest) -> Prediction:
                tokens = catalog[request.sample_id].tokens
                return await self._predict(connection, tokens, request.explanation, found)

            return await in_parallel(predict, requests, self.client.concurrency)

    async def _predict(
        self,
        connection: Connection | Collection,
        tokens: Sequence[str],
        explanation: str,
        scale: Scale,
    ) -> Prediction:
        nothing = replace(NO_PREDICTION, estimator=scale.label)
        if not tokens:
            return replace(nothing, visual=None)
        messages = simulation_messages(tokens, explanation, scale, self.examples)
        answer = await connection.ask(self._request(messages, self.top_logprobs))
        nothing = replace(nothing, omitted=answer.omitted)
        if answer.kept is None:
            status, reason = _failure(answer)
            return replace(nothing, status=status, reason=reason)
        values = read_values(answer.kept, len(tokens), count_numbers(tokens, self.examples), scale)
        if isinstance(values, str):
            return replace(nothing, status="malformed", reason=values)
        return replace(nothing, visual=None, text=values)

    async def _probe(self, connection: Connection | Collection) -> Scale | Answer:
        answer = await connection.ask(self._request(number_probe_messages(), 1))
        logprobs = read_token_logprobs(answer.kept)
        if logprobs is not None:
            scale = read_scale(logprobs)
            if scale is None:
                raise ProviderError(
                    f"the tokenizer of {self.client.model!r} merges a tab with the number after "
                    f"it, so {self.name} cannot read its numbers: use simulate=chat, or another "
                    "model"
                )
            return scale
        if is_undecided(answer):
            return answer
        raise ProviderError(
            f"the server of {self.client.model!r} does not return the log probabilities of its "
            "prompt (prompt_logprobs, return_token_ids), as vLLM does "
            f"({answer.reason or answer.status}); use such a server, or simulate=chat"
        )

    def _request(self, messages: Sequence[dict[str, Any]], alternatives: int) -> Request:
        parameters = {
            "prompt_logprobs": alternatives,
            "return_token_ids": True,
            # The last message stays open, as if the model were still writing it.
            "continue_final_message": True,
            "add_generation_prompt": False,
            "temperature": 0,
            "max_completion_tokens": 1,
        }
        return Request(messages, parameters, extract=_EXTRACT_NUMBERS)


def read_values(kept: Any, n_tokens: int, n_numbers: int, scale: Scale) -> np.ndarray | str:
    """Return the expected values at the last `n_tokens` of a prompt's `n_numbers` number positions,
    float32 [n_tokens]; or, as text, why they cannot be read.

    kept: by `ExtractPromptLogprobs`. See `expected_value`.
    """
    logprobs = read_token_logprobs(kept) or []
    if len(logprobs) != n_numbers:
        return f"the prompt has {len(logprobs)} positions for a number instead of {n_numbers}"
    values = []
    for number, position in enumerate(logprobs[n_numbers - n_tokens :], start=1):
        if not starts_placeholder(position.token, scale.placeholder):
            return f"at token {number} the prompt has {position.token!r} for a placeholder"
        value = expected_value(position, top=scale.top)
        if value is None:
            return (
                f"no number is among the alternatives at token {number}: raise "
                "simulate.top_logprobs and the server's --max-logprobs"
            )
        values.append(value)
    return np.array(values, dtype=np.float32)


def _as_plain(scale: Scale) -> Capabilities:
    return Capabilities(scale.label, asdict(scale))


def _failure(answer: Answer) -> tuple[str, str]:
    """Return status and reason of an answer without log probabilities of its prompt."""
    if answer.status in ("ok", "truncated"):
        return "malformed", "the reply has no log probabilities of the prompt"
    return answer.status, answer.reason
