"""An explainer that shows a neuron's strongest samples to a chat model and asks what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.explain.draw import LEAST_SIZE, Render
from neuron_atlas.tasks.explain.example_renderer import ExampleRenderer
from neuron_atlas.tasks.explain.examples import choose_examples
from neuron_atlas.tasks.explain.explanation import Explainer, Explanation
from neuron_atlas.tasks.explain.prompt import (
    ANSWER_FORMAT,
    Reading,
    again,
    read_answer,
    wording,
)
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.client import (
    ClientSettings,
    Collection,
    Connection,
    connect,
    in_parallel,
    read_key,
)
from neuron_atlas.tasks.models.dialogue import Dialogue, Outcome
from neuron_atlas.tasks.models.prices import Price, check_price, total_cost
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.samples.opened import Unopenable
from neuron_atlas.tasks.settings import AtLeastOne, Share, runtime


@dataclass(frozen=True)
class Chat(Explainer):
    """Settings of the explainer, and the explainer.

    exemplars, lower_share, contrasts: see `choose_examples`. render: how activations are laid over
    a picture (`tasks.explain.draw`). image_size: px that a drawn picture has at most on each side;
    512 is all that detail "low" is seen at, and one tile of detail "high". detail: low, high or
    auto, which sets the price of a picture. max_tokens: of the answer. temperature, seed,
    max_tokens: None leaves them to the provider. structured: ask for the answer by JSON schema; a
    provider without it is asked without.
    prices: by model; the cost of an unpriced model's calls is None.
    """

    name: str = "gpt4o"
    client: ClientSettings = field(default_factory=ClientSettings)
    exemplars: AtLeastOne = 8
    lower_share: Share = 0.25
    contrasts: Annotated[int, Ge(0)] = 0
    render: Render = "heat"
    image_size: Annotated[int, Ge(LEAST_SIZE)] = 512
    detail: Literal["low", "high", "auto"] = "low"
    temperature: float | None = 0.0
    seed: int | None = 0
    max_tokens: AtLeastOne | None = 400
    structured: bool = True
    prices: dict[str, Price] = runtime(default_factory=dict)

    @property
    def wording(self) -> str:
        """See `Explainer`."""
        return wording(self.render, self.contrasts > 0)

    def check(self) -> None:
        """See `Explainer`: the model's price and the key must be there."""
        check_price(self.prices, self.client.model, "explain.prices")
        read_key(self.client.api_key_env, "explain")

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: Calls
    ) -> list[Explanation]:
        """See `Explainer`. Runs an event loop of its own until every neuron has its outcome."""
        check_price(self.prices, self.client.model, "explain.prices")
        return asyncio.run(self._explain_all(evidence, catalog, calls))

    async def _explain_all(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: Calls
    ) -> list[Explanation]:
        # One thread draws, so that drawing holds up no call, and no source has to be thread-safe.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as drawing:
            async with connect(self.client, calls, self.prices) as connection:
                conversation = _Conversation(self, catalog, connection, drawing)
                return await in_parallel(conversation.explain, evidence, self.client.concurrency)


class _Conversation:
    """The calls of one `explain`."""

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
        self._showing = ExampleRenderer(
            catalog, settings.render, settings.image_size, settings.detail
        )

    async def explain(self, evidence: Evidence) -> Explanation:
        begun = time.monotonic()
        settings = self._settings
        examples = choose_examples(
            evidence, self._catalog, settings.exemplars, settings.lower_share, settings.contrasts
        )
        if not examples.active:
            reason = "no exemplar excites it" if evidence.exemplars else "it has no exemplars"
            return Explanation("", "no_evidence", reason)
        try:
            first = await asyncio.get_running_loop().run_in_executor(
                self._drawing, self._showing.first_messages, evidence, examples
            )
        except Unopenable as error:
            return Explanation("", "failed", str(error), seconds=time.monotonic() - begun)
        parameters = {
            "temperature": settings.temperature,
            "seed": settings.seed,
            "max_completion_tokens": settings.max_tokens,
        }
        outcome = await self._dialogue.ask(
            Request(first, parameters, ANSWER_FORMAT), lambda said: read_answer(said.text), again
        )
        return self._told(outcome, examples.sample_ids)

    def _told(self, outcome: Outcome[Reading], exemplar_ids: tuple[int, ...]) -> Explanation:
        reading, answers = outcome.reading, outcome.answers
        tokens_in = sum(answer.tokens_in for answer in answers)
        tokens_out = sum(answer.tokens_out for answer in answers)
        model = self._settings.client.model
        return Explanation(
            text=reading.explanation if reading else "",
            evidence_for=reading.evidence_for if reading else "",
            evidence_against=reading.evidence_against if reading else "",
            confidence=reading.confidence if reading else None,
            status=outcome.status,
            reason=outcome.reason,
            model=model,
            prompt_hash=self._settings.wording,
            attempts=sum(answer.attempts for answer in answers),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost=total_cost(self._settings.prices, model, answers),
            seconds=sum(answer.seconds for answer in answers),
            exemplar_ids=exemplar_ids,
        )
