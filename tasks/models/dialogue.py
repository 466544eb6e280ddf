"""Request an answer in a parsable form, and ask once more if it cannot be parsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.client import Collection, Connection
from neuron_atlas.tasks.models.request import Request

R = TypeVar("R")

Messages = Sequence[Mapping[str, Any]]


class MalformedAnswerError(ValueError):
    """An answer cannot be parsed; the message gives the model the reason."""


@dataclass(frozen=True)
class DialogueResult(Generic[R]):
    """Result of one question. reading: the parsed answer, None unless `status` is ok. answers: all
    answers to it, oldest first."""

    reading: R | None
    status: str
    reason: str
    answers: tuple[Answer, ...]


class Dialogue:
    """Asks questions over one connection. structured: send the JSON schema of the answer, unless
    the server refuses it (`negotiation`)."""

    def __init__(self, connection: Connection | Collection, structured: bool) -> None:
        self._connection = connection
        self._structured = structured

    async def ask(
        self,
        request: Request,
        read: Callable[[Answer], R],
        again: Callable[[str], str],
    ) -> DialogueResult[R]:
        """Ask; if the answer is malformed, ask once more with that answer and the problem.

        read: parses an answer; raises MalformedAnswerError. again: returns the text of the second
        question, given the problem.
        """
        answers = [await self.ask_once(request)]
        reading, complaint = _read(answers[0], read)
        if complaint:
            messages = _with_complaint(request.messages, answers[0].text, again(complaint))
            answers.append(await self.ask_once(replace(request, messages=messages)))
            reading, complaint = _read(answers[1], read)
        last = answers[-1]
        status = "malformed" if complaint else last.status
        return DialogueResult(reading, status, complaint or last.reason, tuple(answers))

    async def ask_once(self, request: Request) -> Answer:
        """Return the answer, unparsed."""
        return await self._connection.ask(
            request if self._structured else replace(request, response_format=None)
        )


def _with_complaint(first: Messages, answer: str, again: str) -> list[Mapping[str, Any]]:
    """Return the same messages, then the malformed answer, then the second question."""
    answered = [{"role": "assistant", "content": answer}] if answer.strip() else []
    return [*first, *answered, {"role": "user", "content": again}]


def _read(answer: Answer, read: Callable[[Answer], R]) -> tuple[R | None, str]:
    """Return the parsed answer, or None, and the problem with it, or ""."""
    if answer.status == "malformed":
        return None, answer.reason
    if answer.status != "ok":
        return None, ""
    try:
        return read(answer), ""
    except MalformedAnswerError as error:
        return None, str(error)
