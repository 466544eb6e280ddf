"""Ask a chat model over the OpenAI protocol: look up, lease, send, settle.

The library's own retries are off: an attempt is a paid event, so it happens where it is leased and
counted.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from neuron_atlas.tasks.models.account.account import LocalAccount
from neuron_atlas.tasks.models.account.messages import Permit, Result, Stored, Want
from neuron_atlas.tasks.models.account.session import AccountSession
from neuron_atlas.tasks.models.answer import Answer, from_json, to_json
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.models.parallel import in_parallel
from neuron_atlas.tasks.models.prices import Price, cost
from neuron_atlas.tasks.models.request import Request, request_hash
from neuron_atlas.tasks.models.request_file import RequestWriter
from neuron_atlas.tasks.models.send import Outcome, Outgoing, Sender, open_client
from neuron_atlas.tasks.models.servers import FixedServers
from neuron_atlas.tasks.models.settings import ClientSettings, read_key
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

_ENCODING_WAIT_S = 15.0


@dataclass(frozen=True)
class _Model:
    """The model to ask, at which prices. group: see `Calls`."""

    settings: ClientSettings
    prices: Mapping[str, Price]
    group: str

    async def stored_or_prepared(
        self, request: Request, session: AccountSession
    ) -> Answer | Outgoing:
        """Return the stored answer to a request, or what to send where there is none."""
        body = request.body(self.settings.model)
        known_as = request_hash(body, self.settings.known_as)
        stored = await session.look_up(known_as)
        if stored is not None:
            return self.check_answer(from_json(stored))
        worst = worst_case(body, self.settings)
        return Outgoing(known_as, body, worst, request.affinity, request.keep)

    def usd(self, tokens_in: int, tokens_out: int) -> float | None:
        """Return the price of so many tokens; None where the model has no price."""
        return cost(self.prices, self.settings.model, tokens_in, tokens_out)

    def worst_usd(self, outgoing: Outgoing) -> float:
        """Return the most that a request can cost; 0 where the model has no price."""
        return self.usd(outgoing.worst.tokens_in, outgoing.worst.tokens_out) or 0.0

    def check_answer(self, answer: Answer) -> Answer:
        """Return the answer, or a failure where another model than the configured one gave it."""
        if self.settings.is_served_by(answer.model):
            return answer
        reason = (
            f"answered by the model {answer.model!r} instead of {self.settings.model!r}; if that "
            f"is another name of it, set {self.group}.client.served_as"
        )
        return replace(answer, status="failed", text="", reason=reason)


class Connection:
    """An open connection to one model; see `connect`."""

    def __init__(self, model: _Model, session: AccountSession, sender: Sender) -> None:
        self._model, self._session, self._sender = model, session, sender
        self._under_way: set[asyncio.Task[Any]] = set()

    async def ask(self, request: Request) -> Answer:
        """Return the stored answer to this request or, where there is none, ask the model.

        Transient failures are tried again. Only answers are stored. Raises Unusable where no call
        can succeed.
        """
        outgoing = await self._model.stored_or_prepared(request, self._session)
        if isinstance(outgoing, Answer):
            return outgoing
        want = Want(
            outgoing.request_hash,
            self._model.settings.model,
            outgoing.worst.total,
            self._model.worst_usd(outgoing),
        )
        begun = time.monotonic()
        attempt = 0
        while True:
            await self._sender.ready()
            lease = await self._session.lease(want)
            if isinstance(lease, Stored):
                return self._model.check_answer(from_json(lease.answer))
            if not isinstance(lease, Permit):
                if lease.kind == "stopped":
                    raise Unusable(lease.reason)
                return Answer("budget", reason=lease.reason, attempts=attempt)
            attempt += 1
            outcome = await self._to_its_end(self._attempt(outgoing, lease, attempt, begun))
            if isinstance(outcome, Answer):
                return self._model.check_answer(outcome)
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

    async def drain(self) -> None:
        """Wait for the calls under way: they are paid for, so their answers are stored."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work that goes on to its end even if its caller is cancelled; see `drain`."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _attempt(
        self, outgoing: Outgoing, permit: Permit, attempt: int, begun: float
    ) -> Outcome:
        """Send a request once, and settle the call."""
        sent_at = time.monotonic()
        outcome, usage = await self._sender.send(outgoing)
        result = Result(permit.call, "", outgoing.request_hash, usage=usage)
        if isinstance(outcome, Answer):
            now = time.monotonic()
            usd = self._model.usd(outcome.tokens_in, outcome.tokens_out)
            outcome = replace(outcome, attempts=attempt, seconds=now - begun, usd=usd)
            result = replace(
                result,
                status=outcome.status,
                answer=to_json(outcome),
                usd=usd,
                tokens_in=outcome.tokens_in,
                tokens_out=outcome.tokens_out,
                seconds=now - sent_at,
            )
        elif isinstance(outcome, Unusable):
            result = replace(result, status="unusable", stop=str(outcome))
        else:
            result = replace(result, status=outcome.kind, maybe_billed=outcome.billed)
        await self._session.settle(result)
        return outcome


class Collection:
    """Stands in for a connection: requests without an answer are written to a file, and pending."""

    def __init__(self, model: _Model, session: AccountSession, writer: RequestWriter) -> None:
        self._model, self._session, self._writer = model, session, writer

    async def ask(self, request: Request) -> Answer:
        """Return the stored answer to this request, or that it is pending."""
        outgoing = await self._model.stored_or_prepared(request, self._session)
        if isinstance(outgoing, Answer):
            return outgoing
        return self._writer.add(
            outgoing.request_hash, outgoing.body, outgoing.worst, self._model.worst_usd(outgoing)
        )


@asynccontextmanager
async def connect(
    settings: ClientSettings, calls: Calls | None = None, prices: Mapping[str, Price] | None = None
) -> AsyncIterator[Connection | Collection]:
    """Open a connection for the running event loop.

    With a request file nothing is sent, and no key is needed. Else raises Unusable, before anything
    is sent, where the key cannot be right.
    """
    calls = calls or Calls()
    model = _Model(settings, prices or {}, calls.group)
    if calls.file is not None:
        load_encoding(settings.model, _ENCODING_WAIT_S)  # People read what is written.
        async with _session(calls, settings) as session:
            with closing(RequestWriter(calls.file)) as writer:
                yield Collection(model, session, writer)
        return
    load_encoding(settings.model, 0.0)
    servers = calls.servers or FixedServers(
        (settings.url,), read_key(settings.api_key_env, calls.group)
    )

    def open_at(base_url: str) -> openai.AsyncOpenAI:
        direct = calls.servers is not None
        return open_client(settings, servers.key, base_url, direct=direct)

    async with _session(calls, settings) as session:
        sender = Sender(settings, servers, open_at, calls.group)
        connection = Connection(model, session, sender)
        try:
            yield connection
        finally:
            await connection.drain()
            await sender.close()


@asynccontextmanager
async def _session(calls: Calls, settings: ClientSettings) -> AsyncIterator[AccountSession]:
    with ExitStack() as opened:
        account = calls.account or opened.enter_context(
            closing(LocalAccount(limits=settings.limits))
        )
        async with AccountSession(account, uuid.uuid4().hex) as session:
            yield session
