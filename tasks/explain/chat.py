"""An explainer that shows a neuron's strongest samples to a chat model and asks what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from tasks.evidence import Evidence
from tasks.explain.draw import LEAST_SIZE, Render
from tasks.explain.exhibits import choose_exhibits
from tasks.explain.explanation import Explanation
from tasks.explain.prompt import (
    ANSWER_FORMAT,
    Malformed,
    Reading,
    read_answer,
    second_messages,
    wording,
)
from tasks.explain.showing import Showing, Unopenable
from tasks.llm.calls import Calls
from tasks.llm.client import (
    Answer,
    ClientSettings,
    Collection,
    Connection,
    connect,
    in_parallel,
    read_key,
)
from tasks.llm.prices import Price, check_price, total_cost
from tasks.llm.request import Request
from tasks.samples.catalog import Catalog
from tasks.settings import runtime


@dataclass(frozen=True)
class Chat:
    """Settings of the explainer, and the explainer.

    exemplars, lower_share, contrasts: see `choose_exhibits`. render: how activations are laid over
    a picture (`tasks.explain.draw`). image_size: px that a drawn picture has at most on each side;
    512 is all that detail "low" is seen at, and one tile of detail "high". detail: low, high or
    auto, which sets the price of a picture. max_tokens: of the answer. temperature, seed,
    max_tokens: None leaves them to the provider. structured: ask for the answer by JSON schema; a
    provider without it is asked without.
    prices: by model; the cost of an unpriced model's calls is None.
    """

    asks_model: ClassVar[bool] = True

    name: str = "gpt4o"
    client: ClientSettings = field(default_factory=ClientSettings)
    exemplars: int = 8
    lower_share: float = 0.25
    contrasts: int = 0
    render: Render = "heat"
    image_size: int = 512
    detail: Literal["low", "high", "auto"] = "low"
    temperature: float | None = 0.0
    seed: int | None = 0
    max_tokens: int | None = 400
    structured: bool = True
    prices: dict[str, Price] = runtime(default_factory=dict)  # noqa: RUF009

    def __post_init__(self) -> None:
        for name, least in (("exemplars", 1), ("contrasts", 0), ("image_size", LEAST_SIZE)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError("max_tokens: must be at least 1")
        if not 0 <= self.lower_share <= 1:
            raise ValueError("lower_share: must be a share from 0 to 1")

    @property
    def wording(self) -> str:
        """See `Explainer`."""
        return wording(self.render, self.contrasts > 0)

    def check(self) -> None:
        """See `Explainer`: the model's price and the key must be there."""
        check_price(self.prices, self.client.model, "explain.prices")
        read_key(self.client.api_key_env)

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
        self._connection = connection
        self._drawing = drawing
        self._structured = settings.structured
        self._showing = Showing(catalog, settings.render, settings.image_size, settings.detail)

    async def explain(self, evidence: Evidence) -> Explanation:
        begun = time.monotonic()
        settings = self._settings
        exhibits = choose_exhibits(
            evidence, self._catalog, settings.exemplars, settings.lower_share, settings.contrasts
        )
        if not exhibits.active:
            reason = "no exemplar excites it" if evidence.exemplars else "it has no exemplars"
            return Explanation("", "no_evidence", reason)
        try:
            first = await asyncio.get_running_loop().run_in_executor(
                self._drawing, self._showing.first_messages, evidence, exhibits
            )
        except Unopenable as error:
            return Explanation("", "failed", str(error), seconds=time.monotonic() - begun)
        answers = [await self._ask(first)]
        reading, complaint = _read(answers[0])
        if complaint:
            second = second_messages(first, answers[0].text, complaint)
            answers.append(await self._ask(second))
            reading, complaint = _read(answers[1])
        last = answers[-1]
        return self._outcome(
            exemplar_ids=exhibits.sample_ids,
            reading=reading,
            status="malformed" if complaint else last.status,
            reason=complaint or last.reason,
            answers=answers,
        )

    async def _ask(self, messages: Sequence[Mapping[str, Any]]) -> Answer:
        settings = self._settings
        parameters = {
            "temperature": settings.temperature,
            "seed": settings.seed,
            "max_completion_tokens": settings.max_tokens,
        }
        if self._structured:
            request = Request(messages, parameters, ANSWER_FORMAT)
            answer = await self._connection.ask(request)
            if not _lacks_schema(answer):
                return answer
            self._structured = False
            said = await self._connection.ask(Request(messages, parameters))
            return replace(
                said,
                attempts=answer.attempts + said.attempts,
                seconds=answer.seconds + said.seconds,
            )
        return await self._connection.ask(Request(messages, parameters))

    def _outcome(
        self,
        reading: Reading | None,
        status: str,
        reason: str,
        answers: Sequence[Answer],
        exemplar_ids: tuple[int, ...],
    ) -> Explanation:
        tokens_in = sum(answer.tokens_in for answer in answers)
        tokens_out = sum(answer.tokens_out for answer in answers)
        model = self._settings.client.model
        return Explanation(
            text=reading.explanation if reading else "",
            evidence_for=reading.evidence_for if reading else "",
            evidence_against=reading.evidence_against if reading else "",
            confidence=reading.confidence if reading else None,
            status=status,
            reason=reason,
            model=model,
            prompt_hash=self._settings.wording,
            attempts=sum(answer.attempts for answer in answers),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost=total_cost(self._settings.prices, model, answers),
            seconds=sum(answer.seconds for answer in answers),
            exemplar_ids=exemplar_ids,
        )


def _lacks_schema(answer: Answer) -> bool:
    said = answer.reason.lower()
    return answer.status == "failed" and ("response_format" in said or "json_schema" in said)


def _read(answer: Answer) -> tuple[Reading | None, str]:
    """The answer as it was read, and what is wrong with it; each empty where there is none."""
    if answer.status == "malformed":
        return None, answer.reason
    if answer.status != "ok":
        return None, ""
    try:
        return read_answer(answer.text), ""
    except Malformed as error:
        return None, str(error)
