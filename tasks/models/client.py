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
from dataclasses import replace
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
from neuron_atlas.tasks.models.call_notices import notice_of
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.called_model import CalledModel
from neuron_atlas.tasks.models.failures import Failure, ProviderError
from neuron_atlas.tasks.models.feature_trial import FeatureNegotiation, FeatureTrial
from neuron_atlas.tasks.models.parallel import in_parallel
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request import Request
from neuron_atlas.tasks.models.request_file import RequestWriter
from neuron_atlas.tasks.models.send import PreparedRequest, Sender, SendResult, open_client
from neuron_atlas.tasks.models.servers import FixedServers
from neuron_atlas.tasks.models.settings import ClientSettings, read_key
from neuron_atlas.tasks.models.tokens import load_encoding

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
_NOT_SERVED = ("budget", "rate_limited", "timed_out", "failed", "malformed", "pending")
"""Statuses that do not show that the server took all features of a request."""


class Connection:
    """An open connection to one model; see `connect`."""

    def __init__(self, model: CalledModel, session: AccountSession, sender: Sender) -> None:
        self._model, self._session, self._sender = model, session, sender
        self._features = FeatureNegotiation(model.settings.qualified_model, session)
        self._under_way: set[asyncio.Task[Any]] = set()

    async def ask(self, request: Request) -> Answer:
        """Return the stored answer to this request or, where there is none, ask the model.

        Retries transient failures. A request whose server refuses an optional feature is sent again
        without it. Only answers are stored, not failures. Raises ProviderError if no call can
        succeed.
        """
        body = request.body(self._model.settings.model)
        # Looked up with all features: an answer may be older than their refusal.
        stored, _ = await asyncio.gather(
            self._model.stored(body, self._session), self._features.load()
        )
        if stored is not None:
            return stored
        async with self._features.turn(body):
            return await self._ask_fitted(request, body)

    async def _ask_fitted(self, request: Request, body: Mapping[str, Any]) -> Answer:
        """Ask with the features that the server takes; leave out one after another that it
        refuses."""
        trial = self._features.begin(body, request.required)
        attempts, seconds = 0, 0.0
        while True:
            fitted = trial.body
            answer, failure = None, None
            if trial.omitted:
                answer = await self._model.stored(fitted, self._session)
            if answer is None:
                prepared = self._model.prepared(request, fitted)
                answer, failure = await self._attempts(prepared, trial)
            attempts, seconds = attempts + answer.attempts, seconds + answer.seconds
            if failure is not None and trial.leave_out(failure):
                continue
            if answer.status not in _NOT_SERVED:
                await self._features.learn(trial)
            if trial.n_refused and not answer.replayed:
                answer = replace(answer, attempts=attempts, seconds=seconds)
            return replace(answer, omitted=", ".join(sorted(trial.omitted)))

    async def _attempts(
        self, prepared: PreparedRequest, trial: FeatureTrial
    ) -> tuple[Answer, Failure | None]:
        """Send a request until it is answered, or fails for good; then also return the failure."""
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
                return self._model.check_answer(from_json(lease.answer)), None
            if not isinstance(lease, Permit):
                if lease.kind == "stopped":
                    raise ProviderError(lease.reason)
                return Answer("budget", reason=lease.reason, attempts=attempt), None
            attempt += 1
            outcome, wait_s = await self._uncancelled(
                self._attempt(prepared, lease, attempt, begun, trial)
            )
            if isinstance(outcome, Answer):
                return self._model.check_answer(outcome), None
            if isinstance(outcome, ProviderError):
                raise outcome
            if outcome.not_counted:
                attempt -= 1
                continue
            if wait_s is None:
                seconds = time.monotonic() - begun
                answer = Answer(
                    outcome.status, reason=outcome.reason, attempts=attempt, seconds=seconds
                )
                return answer, outcome
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
        self,
        prepared: PreparedRequest,
        permit: Permit,
        attempt: int,
        begun: float,
        trial: FeatureTrial,
    ) -> tuple[SendResult, float | None]:
        """Send a request once, and settle the call. Also returns the wait before the next attempt
        (s), None if there is none."""
        sent_at = time.monotonic()
        outcome, usage = await self._sender.send(prepared)
        wait_s = None
        result = CallResult(permit.call, "", prepared.request_hash, usage=usage)
        if isinstance(outcome, Answer):
            now = time.monotonic()
            usd = self._model.usd(outcome.tokens_in, outcome.tokens_out)
            outcome = replace(outcome, attempts=attempt, seconds=now - begun, usd=usd)
            notice, after = notice_of(outcome, self._model.settings.model, self._model.group)
            result = replace(
                result,
                status=outcome.status,
                answer=to_json(outcome),
                usd=usd,
                tokens_in=outcome.tokens_in,
                tokens_out=outcome.tokens_out,
                seconds=now - sent_at,
                notice=notice,
                notice_after=after,
            )
        elif isinstance(outcome, ProviderError):
            result = replace(result, status="unusable", stop=str(outcome))
        else:
            if not trial.is_refused(outcome):
                wait_s = self._sender.wait_s(outcome, prepared.request_hash, attempt)
            result = replace(
                result,
                status=outcome.kind,
                maybe_billed=outcome.billed,
                wait_s=max(wait_s or 0.0, usage.pause_s or 0.0),
                wait_reason=outcome.reason,
            )
        await self._session.settle(result)
        return outcome, wait_s


class Collection:
    """A connection that sends nothing: it writes unanswered requests to a file."""

    def __init__(self, model: CalledModel, session: AccountSession, writer: RequestWriter) -> None:
        self._model, self._session, self._writer = model, session, writer
        self._features = FeatureNegotiation(model.settings.qualified_model, session)

    async def ask(self, request: Request) -> Answer:
        """Return the stored answer to this request; without one, write it and return pending."""
        body = request.body(self._model.settings.model)
        stored, _ = await asyncio.gather(
            self._model.stored(body, self._session), self._features.load()
        )
        if stored is not None:
            return stored
        trial = self._features.begin(body, request.required)
        omitted = ", ".join(sorted(trial.omitted))
        if omitted:
            stored = await self._model.stored(trial.body, self._session)
            if stored is not None:
                return replace(stored, omitted=omitted)
        prepared = self._model.prepared(request, trial.body)
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
    model = CalledModel(settings, prices or {}, calls.group)
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
