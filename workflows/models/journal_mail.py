"""Sends what the calls of one event loop tell a journal's actor in groups, not one by one."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

Message = tuple[str, tuple[Any, ...]]
"""A method of a `Journal` and its arguments."""
_boxes: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, _Box]] = WeakKeyDictionary()


async def post(actor: Any, method: str, *arguments: Any) -> Any:
    """What the actor's journal returns, or raises.

    A message to an actor costs more than what a journal does for it, and answers come in bursts:
    all that is posted before the event loop gets round to it goes as one.
    """
    boxes = _boxes.setdefault(asyncio.get_running_loop(), {})
    return await boxes.setdefault(actor, _Box(actor)).post((method, arguments))


async def deliver(journal: Any, messages: list[Message]) -> list[Any]:
    """For the actor: what each message came to, an exception where it raised one."""
    return await asyncio.gather(
        *(getattr(journal, method)(*arguments) for method, arguments in messages),
        return_exceptions=True,
    )


class _Box:
    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._posted: list[tuple[Message, asyncio.Future[Any]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def post(self, message: Message) -> Any:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Any] = loop.create_future()
        if not self._posted:
            loop.call_soon(self._send)
        self._posted.append((message, told))
        return await told

    def _send(self) -> None:
        posted, self._posted = self._posted, []
        sending = asyncio.ensure_future(self._tell(posted))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _tell(self, posted: list[tuple[Message, asyncio.Future[Any]]]) -> None:
        try:
            results = await self._actor.deliver.remote([message for message, _ in posted])
        except BaseException as error:
            results = [error] * len(posted)
        for (_, told), result in zip(posted, results, strict=True):
            if told.done():
                continue  # Whoever asked was stopped.
            if isinstance(result, BaseException):
                told.set_exception(result)
            else:
                told.set_result(result)
