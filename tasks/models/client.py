"""Asks a chat model over the OpenAI protocol: permit, journal, call, journal.

The client's own retries are off: an attempt is a paid event, so it happens where it is journaled
and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from neuron_atlas.tasks.models.answer import Answer, from_journal, to_journal
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.models.journal import Claim, Journal, Spent
from neuron_atlas.tasks.models.limits import BEAT_S, Settled
from neuron_atlas.tasks.models.outbox import Outbox
from neuron_atlas.tasks.models.parallel import in_parallel
from neuron_atlas.tasks.models.prices import Price, cost
from neuron_atlas.tasks.models.request import Request, request_hash
from neuron_atlas.tasks.models.send import Outcome, Outgoing, Sender, open_client
from neuron_atlas.tasks.models.servers import FixedServers
from neuron_atlas.tasks.models.settings import ClientSettings, read_key
from neuron_atlas.tasks.models.shared_limits import Permits, SharedLimits
from neuron_atlas.tasks.models.spool import SpoolWriter
from neuron_atlas.tasks.models.tokens import load_encoding, worst_case

__all__ = [
    "Answer",
    "ClientSettings",
    "Collection",
    "Connection",
    "Unusable",
    "connect",
    "in_parallel",
    "read_key",
]

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

_LOOK_AGAIN_S = 0.2
_ENCODING_WAIT_S = 15.0


@dataclass(frozen=True)
class _Desk:
    """What connections share: whose requests, at which prices, known to which journal."""

    settings: ClientSettings
    prices: Mapping[str, Price]
    journal: Journal
    group: str

    async def known(self, request: Request) -> Answer | Outgoing:
        """The journaled answer to a request, or what is to be sent."""
        body = request.body(self.settings.model)
        known_as = request_hash(body, self.settings.known_as)
        kept = await self.journal.answer(known_as)
        if kept is not None:
            return self.judged(from_journal(kept))
        worst = worst_case(body, self.settings)
        return Outgoing(known_as, body, worst, request.affinity, request.keep)

    def usd(self, tokens_in: int, tokens_out: int) -> float | None:
        """What so many tokens cost; None where the model has no price."""
        return cost(self.prices, self.settings.model, tokens_in, tokens_out)

    def worst_usd(self, outgoing: Outgoing) -> float:
        """The most that a request can cost; 0 where the model has no price."""
        return self.usd(outgoing.worst.tokens_in, outgoing.worst.tokens_out) or 0.0

    def judged(self, answer: Answer) -> Answer:
        """The answer, unless another model gave it than the one that was asked."""
        if self.settings.is_served_by(answer.model):
            return answer
        reason = (
            f"answered by the model {answer.model!r} instead of {self.settings.model!r}; if that "
            f"is another name of it, set {self.group}.client.served_as"
        )
        return replace(answer, status="failed", text="", reason=reason)


class Connection:
    """An open way to one model; see `connect`."""

    def __init__(
        self, desk: _Desk, sender: Sender, permits: Permits, outbox: Outbox, owner: str
    ) -> None:
        self._desk, self._sender, self._permits, self._owner = desk, sender, permits, owner
        self._outbox = outbox
        self._under_way: set[asyncio.Task[Any]] = set()

    async def ask(self, request: Request) -> Answer:
        """The journaled answer to this request or, where there is none, the model's.

        Only transient failures are tried again, and only answers are journaled. Raises Unusable
        where no call can succeed.
        """
        known = await self._desk.known(request)
        return known if isinstance(known, Answer) else await self._call(known)

    async def _call(self, outgoing: Outgoing) -> Answer:
        begun = time.monotonic()
        attempt = 0
        while True:
            await self._sender.ready()
            permit, claim = await self._allowed(outgoing)
            if claim.kind == "answered":
                return self._desk.judged(from_journal(claim.told))
            if claim.kind == "over_budget":
                return Answer("budget", reason=claim.told, attempts=attempt)
            attempt += 1
            sending = self._begin(self._attempt(outgoing, permit, claim.call, attempt, begun))
            outcome = await asyncio.shield(sending)
            if isinstance(outcome, Answer):
                return self._desk.judged(outcome)
            if isinstance(outcome, Unusable):
                raise outcome
            if outcome.excused:
                attempt -= 1
                continue
            wait_s = self._sender.wait_s(outcome, outgoing.request_hash, attempt)
            if wait_s is None:
                seconds = time.monotonic() - begun
                return Answer(
                    outcome.status, reason=outcome.reason, attempts=attempt, seconds=seconds
                )
            await asyncio.sleep(wait_s)

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do what must come to its end even if whoever asked for it is stopped meanwhile."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def drain(self) -> None:
        """Wait for the calls that are under way: they are paid for, so their answers are kept."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _attempt(
        self, outgoing: Outgoing, permit: int, call: int, attempt: int, begun: float
    ) -> Outcome:
        """Send a request once, and tell the limits and the journal what came of it."""
        journal = self._desk.journal
        called = time.monotonic()
        try:
            outcome, settled = await self._sender.send(outgoing, permit)
        except BaseException:
            self._permits.give_back(Settled(permit))
            raise
        self._permits.give_back(settled)
        now = time.monotonic()
        if isinstance(outcome, Answer):
            usd = self._desk.usd(outcome.tokens_in, outcome.tokens_out)
            answer = replace(outcome, attempts=attempt, seconds=now - begun, usd=usd)
            spent = Spent(answer.status, usd, answer.tokens_in, answer.tokens_out, now - called)
            kept = to_journal(answer)
            self._outbox.put(call, outgoing.request_hash, kept, spent)
            await journal.settle(call, kept, spent)
            self._outbox.delivered(call)
            return answer
        if isinstance(outcome, Unusable):
            await journal.fail(call, "unusable", billed=False)
            await journal.stop(str(outcome))
        else:
            await journal.fail(call, outcome.kind, outcome.billed)
        return outcome

    async def _allowed(self, outgoing: Outgoing) -> tuple[int, Claim]:
        """A permit to call and the journal's grant, or the claim that says why not.

        Raises Unusable where the run is being stopped.
        """
        while True:
            permit = await self._permits.take(outgoing.worst.total)
            claiming = self._begin(self._claim(outgoing, permit))
            try:
                claim = await asyncio.shield(claiming)
            except asyncio.CancelledError:
                self._begin(self._unclaim(claiming, permit))
                raise
            if claim.kind == "stopped":
                raise Unusable(claim.told)
            if claim.kind != "busy":
                return permit, claim
            await asyncio.sleep(_LOOK_AGAIN_S * (0.5 + random.random()))

    async def _claim(self, outgoing: Outgoing, permit: int) -> Claim:
        desk, claim = self._desk, Claim("busy")
        try:
            worst_usd = desk.worst_usd(outgoing)
            claim = await desk.journal.claim(
                outgoing.request_hash, desk.settings.model, worst_usd, self._owner
            )
        finally:
            if claim.kind != "granted":
                self._permits.give_back(Settled(permit, sent=False))
        return claim

    async def _unclaim(self, claiming: asyncio.Task[Claim], permit: int) -> None:
        """Give back what was granted to one that was stopped before it could send."""
        claim = await claiming
        if claim.kind == "granted":
            self._permits.give_back(Settled(permit, sent=False))
            await self._desk.journal.fail(claim.call, "stopped", billed=False)


class Collection:
    """In the place of a connection: requests without an answer are written down, and pending."""

    def __init__(self, desk: _Desk, spool: SpoolWriter) -> None:
        self._desk, self._spool = desk, spool

    async def ask(self, request: Request) -> Answer:
        """The journaled answer to this request or, where there is none, that it is pending."""
        known = await self._desk.known(request)
        if isinstance(known, Answer):
            return known
        return self._spool.add(
            known.request_hash, known.body, known.worst, self._desk.worst_usd(known)
        )


@asynccontextmanager
async def connect(
    settings: ClientSettings, calls: Calls | None = None, prices: Mapping[str, Price] | None = None
) -> AsyncIterator[Connection | Collection]:
    """A connection for the running event loop, closed at the end.

    Where the calls are to be written down instead, nothing is sent, and no key is needed. Else
    raises Unusable, before anything is sent, where the key cannot be right.
    """
    calls = calls or Calls()
    desk = _Desk(settings, prices or {}, calls.journal, calls.group)
    if calls.spool is not None:
        load_encoding(settings.model, _ENCODING_WAIT_S)  # What is written down is read by people.
        with closing(SpoolWriter(calls.spool)) as spool:
            yield Collection(desk, spool)
        return
    load_encoding(settings.model, 0.0)
    servers = calls.servers or FixedServers(
        (settings.url,), read_key(settings.api_key_env, calls.group), is_direct=False
    )

    def open_at(base_url: str) -> openai.AsyncOpenAI:
        return open_client(settings, servers.key, base_url, direct=servers.is_direct)

    owner = uuid.uuid4().hex
    limits = calls.limits or SharedLimits(settings.limits)
    async with Permits(limits, owner) as permits:
        beating = asyncio.ensure_future(_beat(calls.journal, owner))
        with closing(Outbox(calls.outbox, owner)) as outbox:
            sender = Sender(settings, servers, open_at, calls.group)
            connection = Connection(desk, sender, permits, outbox, owner)
            try:
                yield connection
            finally:
                await connection.drain()
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                await sender.close()


async def _beat(journal: Journal, owner: str) -> None:
    while True:
        # One that is not heard is made up for by the next.
        with suppress(Exception):
            await journal.beat(owner)
        await asyncio.sleep(BEAT_S)
