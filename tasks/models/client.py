"""Ask a chat model over the OpenAI protocol: look up, lease, send, settle.

The openai library's own retries are off: each attempt may be billed, so each is leased and counted
here.
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
from neuron_atlas.tasks.models.account.messages import (
    CallResult,
    LeaseRequest,
    Permit,
    StoredAnswer,
)
from neuron_atlas.tasks.models.account.session import AccountSession
from neuron_atlas.tasks.models.answer import Answer, from_json, to_json
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.failures import ProviderError
from neuron_atlas.tasks.models.parallel import in_parallel
from neuron_atlas.tasks.models.prices import Price, cost
from neuron_atlas.tasks.models.request import Request, request_hash
from neuron_atlas.tasks.models.request_file import RequestWriter
from neuron_atlas.tasks.models.send import PreparedRequest, Sender, SendResult, open_client
from neuron_atlas.tasks.models.servers import FixedServers
from neuron_atlas.tasks.models.settings import ClientSettings, read_key
from neuron_atlas.tasks.models.tokens import load_encoding, token_bound

__all__ = [
    "Answer",
    "ClientSettings",
    "Collection",
    "Connection",
    "ProviderError",
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
    """A model with its prices. group: see `CallOptions`."""

    settings: ClientSettings
    prices: Mapping[str, Price]
    group: str

    async def stored_or_prepared(
        self, request: Request, session: AccountSession
    ) -> Answer | PreparedRequest:
        """Return the stored answer to a request; without one, return the request to send."""
        body = request.body(self.settings.model)
        hashed = request_hash(body, self.settings.provider_name)
        stored = await session.look_up(hashed)
        if stored is not None:
            return self.check_answer(from_json(stored))
        bound = token_bound(body, self.settings)
        return PreparedRequest(hashed, body, bound, request.affinity, request.extract)

    def usd(self, tokens_in: int, tokens_out: int) -> float | None:
        """Return the price of a call in USD; None if the model has no price."""
        return cost(self.prices, self.settings.model, tokens_in, tokens_out)

    def max_usd(self, prepared: PreparedRequest) -> float:
        """Return the most that a request can cost in USD; 0 if the model has no price."""
        return self.usd(prepared.bound.tokens_in, prepared.bound.tokens_out) or 0.0

    def check_answer(self, answer: Answer) -> Answer:
        """Return the answer, marked as failed if the configured model did not give it."""
        if self.settings.is_served_by(answer.model):
            return answer
        reason = (
            f"answered by the model {answer.model!r} instead of {self.settings.model!r}; if that "
            f"is another name of it, set {self.group}.client.reply_model_prefix"
        )
        return replace(answer, status="failed", text="", reason=reason)


class Connection:
    """An open connection to one model; see `connect`."""

    def __init__(self, model: _Model, session: AccountSession, sender: Sender) -> None:
        self._model, self._session, self._sender = model, session, sender
        self._under_way: set[asyncio.Task[Any]] = set()

    async def ask(self, request: Request) -> Answer:
        """Return the stored answer to this request or, where there is none, ask the model.

        Retries transient failures. Only answers are stored, not failures. Raises ProviderError if
        no call can succeed.
        """
        prepared = await self._model.stored_or_prepared(request, self._session)
        if isinstance(prepared, Answer):
            return prepared
        want = LeaseRequest(
            prepared.request_hash,
            self._model.settings.model,
            prepared.bound.total,
            self._model.max_usd(prepared),
        )
        begun = time.monotonic()
        attempt = 0
        while True:
            await self._sender.ready()
            lease = await self._session.lease(want)
            if isinstance(lease, StoredAnswer):
                return self._model.check_answer(from_json(lease.answer))
            if not isinstance(lease, Permit):
                if lease.kind == "stopped":
                    raise ProviderError(lease.reason)
                return Answer("budget", reason=lease.reason, attempts=attempt)
            attempt += 1
            outcome = await self._uncancelled(self._attempt(prepared, lease, attempt, begun))
            if isinstance(outcome, Answer):
                return self._model.check_answer(outcome)
            if isinstance(outcome, ProviderError):
                raise outcome
            if outcome.not_counted:
                attempt -= 1
                continue
            wait_s = self._sender.wait_s(outcome, prepared.request_hash, attempt)
            if wait_s is None:
                seconds = time.monotonic() - begun
                return Answer(
                    outcome.status, reason=outcome.reason, attempts=attempt, seconds=seconds
                )
            await asyncio.sleep(wait_s)

    async def drain(self) -> None:
        """Wait for the calls under way: they are billed, so their answers must be stored."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _uncancelled(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that runs to its end even if the caller is cancelled; see `drain`."""
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _attempt(
        self, prepared: PreparedRequest, permit: Permit, attempt: int, begun: float
    ) -> SendResult:
        """Send a request once, and settle the call."""
        sent_at = time.monotonic()
        outcome, usage = await self._sender.send(prepared)
        result = CallResult(permit.call, "", prepared.request_hash, usage=usage)
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
        elif isinstance(outcome, ProviderError):
            result = replace(result, status="unusable", stop=str(outcome))
        else:
            result = replace(result, status=outcome.kind, maybe_billed=outcome.billed)
        await self._session.settle(result)
        return outcome


class Collection:
    """A connection that sends nothing: it writes unanswered requests to a file."""

    def __init__(self, model: _Model, session: AccountSession, writer: RequestWriter) -> None:
        self._model, self._session, self._writer = model, session, writer

    async def ask(self, request: Request) -> Answer:
        """Return the stored answer to this request; without one, write it and return pending."""
        prepared = await self._model.stored_or_prepared(request, self._session)
        if isinstance(prepared, Answer):
            return prepared
        return self._writer.add(
            prepared.request_hash, prepared.body, prepared.bound, self._model.max_usd(prepared)
        )


@asynccontextmanager
async def connect(
    settings: ClientSettings,
    calls: CallOptions | None = None,
    prices: Mapping[str, Price] | None = None,
) -> AsyncIterator[Connection | Collection]:
    """Open a connection for the running event loop.

    With a request file, nothing is sent and no key is needed. Else raises ProviderError before
    anything is sent if the key is missing or malformed.
    """
    calls = calls or CallOptions()
    model = _Model(settings, prices or {}, calls.group)
    if calls.file is not None:
        load_encoding(settings.model, _ENCODING_WAIT_S)  # Users read the written counts.
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
async def _session(calls: CallOptions, settings: ClientSettings) -> AsyncIterator[AccountSession]:
    with ExitStack() as opened:
        account = calls.account or opened.enter_context(
            closing(LocalAccount(limits=settings.limits))
        )
        async with AccountSession(account, uuid.uuid4().hex) as session:
            yield session
