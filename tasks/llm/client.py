"""Asks a chat model over the OpenAI protocol: permit, journal, call, journal.

The client's own retries are off: an attempt is a paid event, so it happens where it is journaled
and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace

from tasks.llm.answer import Answer, from_journal, to_journal
from tasks.llm.calls import Calls
from tasks.llm.failures import Unusable
from tasks.llm.journal import Claim, Journal, Spent
from tasks.llm.limits import BEAT_S, Settled
from tasks.llm.parallel import in_parallel
from tasks.llm.prices import Price, cost
from tasks.llm.request import Request, request_hash
from tasks.llm.send import Outgoing, Sender, open_client
from tasks.llm.settings import ClientSettings, read_key
from tasks.llm.shared_limits import Permits, SharedLimits
from tasks.llm.spool import SpoolWriter
from tasks.llm.tokens import load_encoding, worst_case

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

_LOOK_AGAIN_S = 0.2
_ENCODING_WAIT_S = 15.0


@dataclass(frozen=True)
class _Desk:
    """What connections share: whose requests, at which prices, known to which journal."""

    settings: ClientSettings
    prices: Mapping[str, Price]
    journal: Journal

    async def known(self, request: Request) -> Answer | Outgoing:
        """The journaled answer to a request, or what is to be sent."""
        body = request.body(self.settings.model)
        known_as = request_hash(body, self.settings.known_as)
        kept = await self.journal.answer(known_as)
        if kept is not None:
            return self.judged(from_journal(kept))
        return Outgoing(known_as, body, worst_case(body, self.settings))

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
            "is another name of it, set explain.client.served_as"
        )
        return replace(answer, status="failed", text="", reason=reason)


class Connection:
    """An open way to one model; see `connect`."""

    def __init__(self, desk: _Desk, sender: Sender, permits: Permits, owner: str) -> None:
        self._desk, self._sender, self._permits, self._owner = desk, sender, permits, owner

    async def ask(self, request: Request) -> Answer:
        """The journaled answer to this request or, where there is none, the model's.

        Only transient failures are tried again, and only answers are journaled. Raises Unusable
        where no call can succeed.
        """
        known = await self._desk.known(request)
        return known if isinstance(known, Answer) else await self._call(known)

    async def _call(self, outgoing: Outgoing) -> Answer:
        journal = self._desk.journal
        begun = time.monotonic()
        attempt = 0
        while True:
            permit, claim = await self._allowed(outgoing)
            if claim.kind == "answered":
                return self._desk.judged(from_journal(claim.told))
            if claim.kind == "over_budget":
                return Answer("budget", reason=claim.told, attempts=attempt)
            attempt += 1
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
                await journal.settle(claim.call, to_journal(answer), spent)
                return self._desk.judged(answer)
            if isinstance(outcome, Unusable):
                await journal.fail(claim.call, "unusable", billed=False)
                await journal.stop(str(outcome))
                raise outcome
            await journal.fail(claim.call, outcome.kind, outcome.billed)
            wait_s = self._sender.wait_s(outcome, outgoing.request_hash, attempt)
            if wait_s is None:
                return Answer(
                    outcome.status, reason=outcome.reason, attempts=attempt, seconds=now - begun
                )
            await asyncio.sleep(wait_s)

    async def _allowed(self, outgoing: Outgoing) -> tuple[int, Claim]:
        """A permit to call and the journal's grant, or the claim that says why not.

        Raises Unusable where the run is being stopped.
        """
        desk = self._desk
        while True:
            permit = await self._permits.take(outgoing.worst.total)
            claim = Claim("busy")
            try:
                claim = await desk.journal.claim(
                    outgoing.request_hash,
                    desk.settings.model,
                    desk.worst_usd(outgoing),
                    self._owner,
                )
            finally:
                if claim.kind != "granted":
                    self._permits.give_back(Settled(permit, sent=False))
            if claim.kind == "stopped":
                raise Unusable(claim.told)
            if claim.kind != "busy":
                return permit, claim
            await asyncio.sleep(_LOOK_AGAIN_S * (0.5 + random.random()))


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
    desk = _Desk(settings, prices or {}, calls.journal)
    if calls.spool is not None:
        load_encoding(settings.model, _ENCODING_WAIT_S)  # What is written down is read by people.
        with closing(SpoolWriter(calls.spool)) as spool:
            yield Collection(desk, spool)
        return
    load_encoding(settings.model, 0.0)
    key = read_key(settings.api_key_env)
    owner = uuid.uuid4().hex
    limits = calls.limits or SharedLimits(settings.limits)
    async with open_client(settings, key) as client, Permits(limits, owner) as permits:
        beating = asyncio.ensure_future(_beat(calls.journal, owner))
        try:
            yield Connection(desk, Sender(settings, client, key), permits, owner)
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)


async def _beat(journal: Journal, owner: str) -> None:
    while True:
        await journal.beat(owner)
        await asyncio.sleep(BEAT_S)
