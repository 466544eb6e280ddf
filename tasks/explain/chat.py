"""Explain a neuron with a chat model: show its strongest samples and ask what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.explain.draw import MIN_VIEW_PX, Render
from neuron_atlas.tasks.explain.example_renderer import ExampleRenderer
from neuron_atlas.tasks.explain.examples import choose_examples
from neuron_atlas.tasks.explain.explanation import Explainer, Explanation
from neuron_atlas.tasks.explain.prompt import (
    ANSWER_FORMAT,
    ParsedAnswer,
    prompt_hash,
    read_answer,
    retry_message,
)
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.client import (
    ClientSettings,
    Collection,
    Connection,
    connect,
    in_parallel,
    read_key,
)
from neuron_atlas.tasks.models.dialogue import Dialogue, DialogueResult
from neuron_atlas.tasks.models.prices import Price, check_price, total_cost
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.tokens import answer_limit
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.opened import UnopenableError
from neuron_atlas.tasks.settings import AtLeastOne, Share, not_hashed


@dataclass(frozen=True)
class Chat(Explainer):
    """Explainer that calls a chat model, with its settings.

    exemplars, lower_share, contrasts: see `choose_examples`. render: how activations are drawn over
    a picture (`tasks.explain.draw`). image_size: largest width and height (px) of a drawn picture;
    at detail "low" the model sees 512 px, at "high" 512 px make one tile. detail: low, high or
    auto; it sets the price of a picture. max_tokens: limit on the answer; a model that may reason
    gets 4,000 more for its reasoning. temperature, request_seed, max_tokens: None uses the
    provider's default. structured: request the answer by JSON schema, unless the provider has none.
    prices: by model name; a model without a price is refused.
    """

    name: str = "gpt4o"
    client: ClientSettings = field(default_factory=ClientSettings)
    exemplars: AtLeastOne = 8
    lower_share: Share = 0.25
    contrasts: Annotated[int, Ge(0)] = 3
    render: Render = "heat"
    image_size: Annotated[int, Ge(MIN_VIEW_PX)] = 512
    detail: Literal["low", "high", "auto"] = "low"
    temperature: float | None = 0.0
    request_seed: int | None = 0
    max_tokens: AtLeastOne | None = 400
    structured: bool = True
    prices: dict[str, Price] = not_hashed(default_factory=dict)

    @property
    def prompt_hash(self) -> str:
        """See `Explainer`."""
        return prompt_hash(self.render, self.contrasts > 0)

    @property
    def answer_limit(self) -> int | None:
        """Limit on the tokens of an answer with its reasoning; None for the provider's default."""
        if self.max_tokens is None:
            return None
        return answer_limit(self.client.model, self.max_tokens)

    def check(self) -> None:
        """See `Explainer`. Raises ProviderError if the model's price or the API key is missing."""
        check_price(self.prices, self.client.model, "explain.prices")
        read_key(self.client.api_key_env, "explain")

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: CallOptions
    ) -> list[Explanation]:
        """See `Explainer`. Runs its own event loop. Raises ProviderError."""
        check_price(self.prices, self.client.model, "explain.prices")
        return asyncio.run(self._explain_all(evidence, catalog, calls))

    async def _explain_all(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: CallOptions
    ) -> list[Explanation]:
        # One thread draws: calls never wait for it, and sources need not be thread-safe.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as drawing:
            async with connect(self.client, calls, self.prices) as connection:
                explain_calls = _ExplainCalls(self, catalog, connection, drawing)
                return await in_parallel(explain_calls.explain, evidence, self.client.concurrency)


class _ExplainCalls:
    """Calls of one `explain`, with what they share."""

    def __init__(
        self,
        settings: Chat,
        catalog: Catalog,
        connection: Connection | Collection,
        drawing: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._drawing = drawing
        self._dialogue = Dialogue(connection, settings.structured)
        self._renderer = ExampleRenderer(
            catalog, settings.render, settings.image_size, settings.detail
        )

    async def explain(self, evidence: Evidence) -> Explanation:
        started = time.monotonic()
        settings = self._settings
        examples = choose_examples(
            evidence, self._catalog, settings.exemplars, settings.lower_share, settings.contrasts
        )
        if not examples.active:
            reason = (
                "no exemplar activates the neuron"
                if evidence.exemplars
                else "the neuron has no exemplars"
            )
            return Explanation("", "no_evidence", reason)
        try:
            messages = await asyncio.get_running_loop().run_in_executor(
                self._drawing, self._renderer.first_messages, evidence, examples
            )
        except UnopenableError as error:
            return Explanation("", "failed", str(error), seconds=time.monotonic() - started)
        parameters = {
            "temperature": settings.temperature,
            "seed": settings.request_seed,
            "max_completion_tokens": settings.answer_limit,
        }
        outcome = await self._dialogue.ask(
            Request(messages, parameters, ANSWER_FORMAT),
            lambda answer: read_answer(answer.text),
            retry_message,
        )
        return self._explanation(outcome, examples.sample_ids)

    def _explanation(
        self, outcome: DialogueResult[ParsedAnswer], exemplar_ids: tuple[int, ...]
    ) -> Explanation:
        parsed, answers = outcome.reading, outcome.answers
        tokens_in = sum(answer.tokens_in for answer in answers)
        tokens_out = sum(answer.tokens_out for answer in answers)
        model = self._settings.client.model
        return Explanation(
            text=parsed.explanation if parsed else "",
            evidence_for=parsed.evidence_for if parsed else "",
            evidence_against=parsed.evidence_against if parsed else "",
            confidence=parsed.confidence if parsed else None,
            status=outcome.status,
            reason=outcome.reason,
            model=model,
            prompt_hash=self._settings.prompt_hash,
            attempts=sum(answer.attempts for answer in answers),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost=total_cost(self._settings.prices, model, answers),
            seconds=sum(answer.seconds for answer in answers),
            exemplar_ids=exemplar_ids,
            omitted=answers[-1].omitted,
        )
