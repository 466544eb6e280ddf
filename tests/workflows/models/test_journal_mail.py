"""What is told to a journal on another machine, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest

from neuron_atlas.workflows.models.journal_mail import Message, deliver, post


class Journal:
    """Answers with what it was asked."""

    async def answer(self, request_hash: str) -> str:
        return f"of {request_hash}"

    async def settle(self, call: int) -> None:
        raise KeyError(f"call {call}")


class Actor:
    """In the place of the journal's actor; notes how many messages came together."""

    def __init__(self, is_dead: bool = False) -> None:
        self.groups: list[int] = []
        self._is_dead = is_dead
        self.deliver = SimpleNamespace(remote=self._deliver)

    def _deliver(self, messages: list[Message]) -> Awaitable[list[Any]]:
        self.groups.append(len(messages))
        return self._fail() if self._is_dead else deliver(Journal(), messages)

    async def _fail(self) -> list[Any]:
        raise ConnectionError("the journal is not there")


def test_what_is_posted_together_goes_as_one_and_each_gets_its_own_answer() -> None:
    actor = Actor()

    async def work() -> list[str]:
        return await asyncio.gather(*(post(actor, "answer", f"{number}") for number in range(50)))

    assert asyncio.run(work()) == [f"of {number}" for number in range(50)]
    assert actor.groups == [50]


def test_what_is_posted_later_does_not_wait_for_what_is_under_way() -> None:
    actor = Actor()

    async def work() -> None:
        first = asyncio.ensure_future(post(actor, "answer", "first"))
        await asyncio.sleep(0)
        await asyncio.gather(first, post(actor, "answer", "second"))

    asyncio.run(work())
    assert actor.groups == [1, 1]


def test_what_one_message_raises_harms_no_other() -> None:
    async def work() -> list[Any]:
        told = (post(actor, "answer", "a"), post(actor, "settle", 7), post(actor, "answer", "b"))
        return await asyncio.gather(*told, return_exceptions=True)

    actor = Actor()
    first, failed, last = asyncio.run(work())
    assert (first, last) == ("of a", "of b")
    assert isinstance(failed, KeyError)


def test_all_hear_of_it_where_the_journal_is_gone() -> None:
    async def work() -> list[Any]:
        told = (post(actor, "answer", f"{number}") for number in range(3))
        return await asyncio.gather(*told, return_exceptions=True)

    actor = Actor(is_dead=True)
    assert [type(error) for error in asyncio.run(work())] == [ConnectionError] * 3


def test_one_who_is_stopped_harms_no_other() -> None:
    async def work() -> str:
        stopped = asyncio.ensure_future(post(actor, "answer", "stopped"))
        other = asyncio.ensure_future(post(actor, "answer", "other"))
        await asyncio.sleep(0)
        stopped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopped
        return await other

    actor = Actor()
    assert asyncio.run(work()) == "of other"


def test_each_event_loop_posts_for_itself() -> None:
    actor = Actor()
    for _ in range(2):
        assert asyncio.run(post(actor, "answer", "x")) == "of x"
    assert actor.groups == [1, 1]
