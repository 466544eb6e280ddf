"""Asks for an answer in a form that can be read, and once more where it could not be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.client import Collection, Connection
from neuron_atlas.tasks.models.request import Request

R = TypeVar("R")

Messages = Sequence[Mapping[str, Any]]


class Malformed(ValueError):
    """An answer that cannot be read; the message says why, in words for the model."""


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """How a question ended: what was read, None unless `status` is ok, and all answers to it."""

    reading: R | None
    status: str
    reason: str
    answers: tuple[Answer, ...]


class Dialogue:
    """Questions over one connection. structured: ask for the form by JSON schema; a provider
    without it is asked without, from its first refusal on."""

    def __init__(self, connection: Connection | Collection, structured: bool) -> None:
        self._connection = connection
        self._structured = structured

    async def ask(
        self,
        request: Request,
        read: Callable[[Answer], R],
        again: Callable[[str], str],
    ) -> Outcome[R]:
        """Ask, and where the answer is malformed ask once more, with it and what is wrong with it.

        read: raises Malformed. again: words the second question, given what was wrong.
        """
        answers = [await self.ask_once(request)]
        reading, complaint = _read(answers[0], read)
        if complaint:
            messages = _with_complaint(request.messages, answers[0].text, again(complaint))
            answers.append(await self.ask_once(replace(request, messages=messages)))
            reading, complaint = _read(answers[1], read)
        last = answers[-1]
        status = "malformed" if complaint else last.status
        return Outcome(reading, status, complaint or last.reason, tuple(answers))

    async def ask_once(self, request: Request) -> Answer:
        """The answer, whatever it is; without the schema where the provider has none."""
        bare = replace(request, response_format=None)
        if not self._structured or request.response_format is None:
            return await self._connection.ask(bare)
        answer = await self._connection.ask(request)
        if not _lacks_schema(answer):
            return answer
        self._structured = False
        said = await self._connection.ask(bare)
        return replace(
            said,
            attempts=answer.attempts + said.attempts,
            seconds=answer.seconds + said.seconds,
        )


def _with_complaint(first: Messages, said: str, again: str) -> list[Mapping[str, Any]]:
    """The same question once more, with the answer that could not be read and why."""
    answered = [{"role": "assistant", "content": said}] if said.strip() else []
    return [*first, *answered, {"role": "user", "content": again}]


def _lacks_schema(answer: Answer) -> bool:
    said = answer.reason.lower()
    return answer.status == "failed" and ("response_format" in said or "json_schema" in said)


def _read(answer: Answer, read: Callable[[Answer], R]) -> tuple[R | None, str]:
    """The answer as it was read, and what is wrong with it; each empty where there is none."""
    if answer.status == "malformed":
        return None, answer.reason
    if answer.status != "ok":
        return None, ""
    try:
        return read(answer), ""
    except Malformed as error:
        return None, str(error)
