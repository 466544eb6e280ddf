"""An explainer that shows a neuron's strongest samples to a chat model and asks what they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from tasks.evidence import Evidence, Excitation, to_ten
from tasks.explain.draw import draw_beside, fit, mark_tokens
from tasks.explain.explanation import Explanation
from tasks.explain.prompt import (
    ANSWER_FORMAT,
    PROMPT_HASH,
    Malformed,
    Shown,
    first_messages,
    one_line,
    read_answer,
    second_messages,
)
from tasks.llm.client import (
    Answer,
    ClientSettings,
    Connection,
    connect,
    in_parallel,
    read_key,
)
from tasks.llm.journal import Journal
from tasks.llm.prices import Price, cost
from tasks.llm.request import Request
from tasks.regions import heat_over
from tasks.samples.catalog import Catalog

_VIEWS_KEPT = 256
_LISTED_REASON = 200


@dataclass(frozen=True)
class Chat:
    """Settings of the explainer, and the explainer.

    exemplars: how many of the evidence's strongest are shown. image_size: longer side (px) of
    each half of a drawn picture; 252 makes a square one 512 px wide, the most that a picture of
    detail "low" is seen at. detail: low, high or auto, which sets the price of a picture.
    max_tokens: of the answer. temperature, seed, max_tokens: None leaves them to the provider.
    structured: ask for the answer by JSON schema; a provider without it is asked without.
    prices: by model; the cost of an unpriced model's calls is None.
    """

    asks_model: ClassVar[bool] = True
    wording: ClassVar[str] = PROMPT_HASH

    name: str = "gpt4o"
    client: ClientSettings = field(default_factory=ClientSettings)
    exemplars: int = 8
    image_size: int = 252
    detail: Literal["low", "high", "auto"] = "low"
    temperature: float | None = 0.0
    seed: int | None = 0
    max_tokens: int | None = 400
    structured: bool = True
    prices: dict[str, Price] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("exemplars", "image_size", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be at least 1")

    def check(self) -> None:
        """See `Explainer`: the key must be there."""
        read_key(self.client.api_key_env)

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, journal: Journal
    ) -> list[Explanation]:
        """See `Explainer`. Runs an event loop of its own until every neuron has its outcome."""
        return asyncio.run(self._explain_all(evidence, catalog, journal))

    async def _explain_all(
        self, evidence: Sequence[Evidence], catalog: Catalog, journal: Journal
    ) -> list[Explanation]:
        # One thread draws, so that drawing holds up no call, and no source has to be thread-safe.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="draw") as drawing:
            async with connect(self.client) as connection:
                conversation = _Conversation(self, catalog, journal, connection, drawing)
                return await in_parallel(conversation.explain, evidence, self.client.concurrency)


class _Unopenable(Exception):
    """An image that was there when the samples were listed, and is not now."""


class _Conversation:
    """The calls of one `explain`."""

    def __init__(
        self,
        settings: Chat,
        catalog: Catalog,
        journal: Journal,
        connection: Connection,
        drawing: ThreadPoolExecutor,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._journal = journal
        self._connection = connection
        self._drawing = drawing
        self._structured = settings.structured
        # A sample is an exemplar of many neurons, and opening is the slow part of drawing it.
        self._view = lru_cache(maxsize=_VIEWS_KEPT)(self._open_view)

    async def explain(self, evidence: Evidence) -> Explanation:
        begun = time.monotonic()
        shown = [
            seen
            for seen in evidence.exemplars[: self._settings.exemplars]
            if _is_active(seen, evidence.scale)
        ]
        if not shown:
            reason = "no exemplar excites it" if evidence.exemplars else "it has no exemplars"
            return Explanation("", "no_evidence", reason)
        try:
            first = await asyncio.get_running_loop().run_in_executor(
                self._drawing, self._first_messages, evidence, shown
            )
        except _Unopenable as error:
            return Explanation("", "failed", str(error), seconds=time.monotonic() - begun)
        answers = [await self._ask(first)]
        text, complaint = _read(answers[0])
        if complaint:
            second = second_messages(first, answers[0].text, complaint)
            answers.append(await self._ask(second))
            text, complaint = _read(answers[1])
        last = answers[-1]
        return self._outcome(
            exemplar_ids=tuple(seen.sample_id for seen in shown),
            text=text,
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
            answer = await self._connection.ask(request, self._journal)
            if not _lacks_schema(answer):
                return answer
            self._structured = False
        return await self._connection.ask(Request(messages, parameters), self._journal)

    def _first_messages(
        self, evidence: Evidence, shown: Sequence[Excitation]
    ) -> list[dict[str, Any]]:
        samples = [self._draw(evidence, seen) for seen in shown]
        return first_messages(evidence.type, samples, self._settings.detail)

    def _draw(self, evidence: Evidence, seen: Excitation) -> Shown:
        sample = self._catalog[seen.sample_id]
        picture = text = None
        if evidence.type != "text" and sample.regions:
            heat = heat_over(sample.view, to_ten(seen.visual, evidence.scale))
            picture = draw_beside(self._view(seen.sample_id), heat, self._settings.image_size)
        if evidence.type != "visual":
            text = mark_tokens(sample.tokens, to_ten(seen.text, evidence.scale))
        return Shown(picture, text)

    def _open_view(self, sample_id: int) -> Image.Image:
        try:
            return fit(self._catalog.open_view(sample_id), self._settings.image_size)
        except Exception as error:  # Whatever a source raises, it is this neuron's outcome.
            raise _Unopenable(
                one_line(f"sample {sample_id}: {type(error).__name__}: {error}")[:_LISTED_REASON]
            ) from error

    def _outcome(
        self,
        text: str,
        status: str,
        reason: str,
        answers: Sequence[Answer],
        exemplar_ids: tuple[int, ...],
    ) -> Explanation:
        tokens_in = sum(answer.tokens_in for answer in answers)
        tokens_out = sum(answer.tokens_out for answer in answers)
        model = self._settings.client.model
        return Explanation(
            text=text,
            status=status,
            reason=reason,
            model=model,
            prompt_hash=PROMPT_HASH,
            attempts=sum(answer.attempts for answer in answers),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            cost=cost(self._settings.prices, model, tokens_in, tokens_out),
            seconds=sum(answer.seconds for answer in answers),
            exemplar_ids=exemplar_ids,
        )


def _is_active(seen: Excitation, scale: float) -> bool:
    everything = np.concatenate([seen.visual.ravel(), seen.text.ravel()])
    return bool(to_ten(everything, scale).max(initial=0) > 0)


def _lacks_schema(answer: Answer) -> bool:
    said = answer.reason.lower()
    return answer.status == "failed" and ("response_format" in said or "json_schema" in said)


def _read(answer: Answer) -> tuple[str, str]:
    """The explanation, and what is wrong with the answer; each empty where there is none."""
    if answer.status == "malformed":
        return "", answer.reason
    if answer.status != "ok":
        return "", ""
    try:
        return read_answer(answer.text).explanation, ""
    except Malformed as error:
        return "", str(error)
