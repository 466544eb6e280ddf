"""One process's connection to an account: its calls share one message at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from neuron_atlas.tasks.models.account.messages import (
    HEARTBEAT_S,
    Account,
    AccountMessage,
    AccountReply,
    CallResult,
    FeatureReport,
    LeaseRequest,
    Permit,
    Refusal,
    StoredAnswer,
    Usage,
)
from neuron_atlas.tasks.models.account.received import store_received
from neuron_atlas.tasks.models.negotiation import ServerFeatures

_WANTS = 64
"""Requests to lease in one message, at most."""
_Pending = tuple[AccountMessage, asyncio.Future[AccountReply]]


class AccountSession:
    """A caller of an account (`async with`).

    While a message is under way, new items are collected for the next message. A message is sent
    at least every HEARTBEAT_S.
    """

    def __init__(self, account: Account, owner: str) -> None:
        self._account, self._owner = account, owner
        folder = account.received_folder
        self._received = None if folder is None else folder / f"{owner}.jsonl"
        self._is_delivered = True
        self._items: list[_Pending] = []
        self._wants: list[_Pending] = []
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
            self._ask(CallResult(call, "stopped", maybe_billed=True))
        self._is_closing = True
        self._has_news.set()
        await self._exchanging
        if self._received is not None and self._is_delivered:
            self._received.unlink(missing_ok=True)

    async def look_up(self, request_hash: str) -> str | None:
        """Return the stored answer (JSON) to a request, or None."""
        reply = await self._ask(request_hash)
        return reply.answer if isinstance(reply, StoredAnswer) else None

    async def features(self, report: FeatureReport) -> ServerFeatures:
        """Report what was found out about a server; return all that is known of it."""
        reply = await self._ask(report)
        assert isinstance(reply, ServerFeatures)
        return reply

    async def lease(self, want: LeaseRequest) -> Permit | StoredAnswer | Refusal:
        """Wait for a permit to send a request, its stored answer, or a refusal."""
        pending = self._ask(want)
        try:
            reply = await pending
        except asyncio.CancelledError:
            if pending.done() and not pending.cancelled() and pending.exception() is None:
                self._give_back(pending.result())
            raise
        assert isinstance(reply, Permit | StoredAnswer | Refusal)
        return reply

    async def settle(self, result: CallResult) -> None:
        """Store the result of a call. Its answer survives this process from now on."""
        if self._received is not None and result.answer is not None:
            store_received(self._received, result)
        await self._ask(result)

    def _ask(self, item: AccountMessage) -> asyncio.Future[AccountReply]:
        reply: asyncio.Future[AccountReply] = asyncio.get_running_loop().create_future()
        (self._wants if isinstance(item, LeaseRequest) else self._items).append((item, reply))
        self._has_news.set()
        return reply

    def _give_back(self, reply: AccountReply) -> None:
        if isinstance(reply, Permit):
            self._ask(CallResult(reply.call, "stopped", usage=Usage(sent=False)))

    async def _exchange_all(self) -> None:
        wait_s = HEARTBEAT_S
        while self._items or not self._is_closing:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._has_news.wait(), wait_s)
            self._has_news.clear()
            self._wants = [one for one in self._wants if not one[1].done()]
            pending = [*self._items, *self._wants[:_WANTS]]
            self._items = []
            try:
                items = [item for item, _ in pending]
                replies, wait_s = await self._account.exchange(self._owner, items)
            except Exception as error:
                self._fail(pending, error)
                wait_s = HEARTBEAT_S
                continue
            for (item, waiting), reply in zip(pending, replies, strict=True):
                self._pass_on(item, waiting, reply)
            self._wants = [one for one in self._wants if not one[1].done()]
            if not any(isinstance(reply, str) for reply in replies):
                wait_s = 0.0 if self._wants else HEARTBEAT_S

    def _pass_on(
        self, item: AccountMessage, waiting: asyncio.Future[AccountReply], reply: AccountReply
    ) -> None:
        if isinstance(item, CallResult):
            self._leased.discard(item.call)
        if isinstance(reply, Permit):
            self._leased.add(reply.call)
        if waiting.done():  # Cancelled.
            self._give_back(reply)
        elif not isinstance(reply, str):
            waiting.set_result(reply)

    def _fail(self, pending: Sequence[_Pending], error: Exception) -> None:
        for item, waiting in pending:
            self._is_delivered &= not isinstance(item, CallResult)
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # Read here, because no caller may wait for it.
