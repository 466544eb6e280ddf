"""One process's connection to an account: its calls share one message at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from neuron_atlas.tasks.models.account.messages import (
    HEARTBEAT_S,
    Account,
    Item,
    Permit,
    Refusal,
    Reply,
    Result,
    Stored,
    Usage,
    Want,
)
from neuron_atlas.tasks.models.account.received import store_received

_WANTS = 64
"""Requests to lease in one message, at most."""
_Asked = tuple[Item, asyncio.Future[Reply]]


class AccountSession:
    """A caller of an account (`async with`).

    While a message is under way, what its calls ask for is collected for the next one. There is a
    message at least every HEARTBEAT_S.
    """

    def __init__(self, account: Account, owner: str) -> None:
        self._account, self._owner = account, owner
        folder = account.received_folder
        self._received = None if folder is None else folder / f"{owner}.jsonl"
        self._is_delivered = True
        self._items: list[_Asked] = []
        self._wants: list[_Asked] = []
        self._has_news = asyncio.Event()
        self._is_closing = False
        self._leased: set[int] = set()
        """Calls that are not settled."""

    async def __aenter__(self) -> AccountSession:
        self._exchanging = asyncio.ensure_future(self._exchange_all())
        return self

    async def __aexit__(self, *error: object) -> None:
        for _, reply in self._wants:
            reply.cancel()
        for call in self._leased:
            self._ask(Result(call, "stopped", maybe_billed=True))
        self._is_closing = True
        self._has_news.set()
        await self._exchanging
        if self._received is not None and self._is_delivered:
            self._received.unlink(missing_ok=True)

    async def look_up(self, request_hash: str) -> str | None:
        """Return the stored answer (JSON) to a request, or None."""
        reply = await self._ask(request_hash)
        return reply.answer if isinstance(reply, Stored) else None

    async def lease(self, want: Want) -> Permit | Stored | Refusal:
        """Wait until a request may be sent, or need not or may not be."""
        asked = self._ask(want)
        try:
            reply = await asked
        except asyncio.CancelledError:
            if asked.done() and not asked.cancelled() and asked.exception() is None:
                self._give_back(asked.result())
            raise
        assert isinstance(reply, Permit | Stored | Refusal)
        return reply

    async def settle(self, result: Result) -> None:
        """Store how a call ended; an answer survives this process from now on."""
        if self._received is not None and result.answer is not None:
            store_received(self._received, result)
        await self._ask(result)

    def _ask(self, item: Item) -> asyncio.Future[Reply]:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        (self._wants if isinstance(item, Want) else self._items).append((item, reply))
        self._has_news.set()
        return reply

    def _give_back(self, reply: Reply) -> None:
        if isinstance(reply, Permit):
            self._ask(Result(reply.call, "stopped", usage=Usage(sent=False)))

    async def _exchange_all(self) -> None:
        wait_s = HEARTBEAT_S
        while self._items or not self._is_closing:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_news.wait(), wait_s)
            self._has_news.clear()
            self._wants = [one for one in self._wants if not one[1].done()]
            asked = [*self._items, *self._wants[:_WANTS]]
            self._items = []
            try:
                items = [item for item, _ in asked]
                replies, wait_s = await self._account.exchange(self._owner, items)
            except Exception as error:
                self._fail(asked, error)
                wait_s = HEARTBEAT_S
                continue
            for (item, waiting), reply in zip(asked, replies, strict=True):
                self._pass_on(item, waiting, reply)
            self._wants = [one for one in self._wants if not one[1].done()]
            if not any(isinstance(reply, str) for reply in replies):
                wait_s = 0.0 if self._wants else HEARTBEAT_S

    def _pass_on(self, item: Item, waiting: asyncio.Future[Reply], reply: Reply) -> None:
        if isinstance(item, Result):
            self._leased.discard(item.call)
        if isinstance(reply, Permit):
            self._leased.add(reply.call)
        if waiting.done():  # Cancelled.
            self._give_back(reply)
        elif not isinstance(reply, str):
            waiting.set_result(reply)

    def _fail(self, asked: Sequence[_Asked], error: Exception) -> None:
        for item, waiting in asked:
            self._is_delivered &= not isinstance(item, Result)
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # Read here, for nobody may wait for it.
