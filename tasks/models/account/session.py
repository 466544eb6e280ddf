"""One process's connection to an account: groups the messages of its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from neuron_atlas.tasks.models.account.messages import (
    HEARTBEAT_S,
    Account,
    Permit,
    Reply,
    Result,
    Usage,
    Want,
)
from neuron_atlas.tasks.models.account.received import ReceivedFile

Item = TypeVar("Item")
Value = TypeVar("Value")

_WANTS = 64
"""Requests in one message, at most."""


class AccountSession:
    """A caller of an account, with a heartbeat for as long as it is open (`async with`).

    The account may be on another machine, so all that is asked in one turn of the event loop goes
    as one message.
    """

    def __init__(self, account: Account, owner: str) -> None:
        self._account, self._owner = account, owner
        self._look_up: _Grouped[str, str | None] = _Grouped(
            lambda hashes: account.look_up(owner, hashes)
        )
        self._settle = _Grouped(self._settle_all)
        self._received = ReceivedFile(account.received_folder, owner)
        self._wanted: list[tuple[Want, asyncio.Future[Reply]]] = []
        self._has_wants = asyncio.Event()
        self._sent: set[int] = set()
        """Calls that may have been sent and are not settled."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> AccountSession:
        self._tasks = [asyncio.ensure_future(work()) for work in (self._lease_all, self._beat)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(Exception):  # What the account is not told expires there.
            await self._account.leave(self._owner, tuple(self._sent))
        self._received.close()

    async def look_up(self, request_hash: str) -> str | None:
        """Return the stored answer (JSON) to a request, or None."""
        return await self._look_up(request_hash)

    async def lease(self, want: Want) -> Reply:
        """Wait until a request may be sent, or need not or may not be."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._wanted.append((want, reply))
        self._has_wants.set()
        try:
            decision = await reply
        except asyncio.CancelledError:
            if reply.done() and not reply.cancelled():
                self._not_sent(reply.result())
            raise
        if isinstance(decision, Permit):
            self._sent.add(decision.call)
        return decision

    async def settle(self, result: Result) -> None:
        """Store how a call ended; an answer survives this process from now on."""
        self._received.add(result)
        await self._settle(result)
        self._received.delivered(result.call)
        self._sent.discard(result.call)

    async def _settle_all(self, results: list[Result]) -> list[None]:
        await self._account.settle(self._owner, results)
        return [None] * len(results)

    async def _lease_all(self) -> None:
        while True:
            await self._has_wants.wait()
            self._wanted = [one for one in self._wanted if not one[1].done()]
            if not self._wanted:
                self._has_wants.clear()
                continue
            asked = self._wanted[:_WANTS]
            try:
                decided = await self._account.lease(self._owner, [want for want, _ in asked])
            except Exception as error:
                for _, reply in asked:
                    if not reply.done():
                        reply.set_exception(error)
                continue
            for index, decision in decided:
                reply = asked[index][1]
                if reply.done():
                    self._not_sent(decision)  # Cancelled meanwhile.
                else:
                    reply.set_result(decision)

    def _not_sent(self, reply: Reply) -> None:
        if isinstance(reply, Permit):
            unsent = Result(reply.call, "stopped", usage=Usage(sent=False))
            self._tasks.append(asyncio.ensure_future(self._settle(unsent)))

    async def _beat(self) -> None:
        while True:
            with suppress(Exception):  # The next heartbeat makes up for one that is missed.
                await self._account.settle(self._owner, [])
            await asyncio.sleep(HEARTBEAT_S)


class _Grouped(Generic[Item, Value]):
    """Calls `send` once for all items of one turn of the event loop."""

    def __init__(self, send: Callable[[list[Item]], Awaitable[list[Value]]]) -> None:
        self._send = send
        self._items: list[tuple[Item, asyncio.Future[Value]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Value:
        loop = asyncio.get_running_loop()
        value: asyncio.Future[Value] = loop.create_future()
        if not self._items:
            loop.call_soon(self._start)
        self._items.append((item, value))
        return await value

    def _start(self) -> None:
        items, self._items = self._items, []
        task = asyncio.ensure_future(self._send_all(items))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send_all(self, items: list[tuple[Item, asyncio.Future[Value]]]) -> None:
        values: list[Any]
        try:
            values = await self._send([item for item, _ in items])
        except BaseException as error:
            values = [error] * len(items)
        for (_, future), value in zip(items, values, strict=True):
            if future.done():
                continue  # Its caller was cancelled.
            if isinstance(value, BaseException):
                future.set_exception(value)
            else:
                future.set_result(value)
