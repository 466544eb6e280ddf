"""Asks a chat model over the OpenAI protocol: journal first, then the call, then the journal.

The client's own retries are off: an attempt is a paid event, so it happens where it is journaled
and counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import openai

from tasks.llm.failures import Failure, Unusable, from_connection, from_status
from tasks.llm.journal import Journal
from tasks.llm.request import Request, request_hash
from tasks.settings import runtime

__all__ = ["Answer", "ClientSettings", "Connection", "Unusable", "connect", "in_parallel"]

T = TypeVar("T")
R = TypeVar("R")

_DEFAULT_BASE_URL = "https://api.openai.com/v1"
_REASON_LENGTH = 300


@dataclass(frozen=True)
class ClientSettings:
    """Which model to ask, where, and how hard to try. The key itself is never a setting.

    base_url: where the protocol is spoken; None is OpenAI.
    provider: whose model it is, as it counts in the journal. None is the host (and port) of
    base_url; name it where the same model is served from changing addresses.
    concurrency: calls in flight at once. timeout_s: of one attempt, from connecting to the last
    byte. Between attempts it waits from first_wait_s (s) up to max_wait_s, doubling, with jitter
    drawn from `seed`; a provider that asks for a wait gets it, unless it is over max_wait_s.
    """

    model: str = "gpt-4o"
    base_url: str | None = None
    provider: str | None = None
    api_key_env: str = runtime("OPENAI_API_KEY")
    concurrency: int = runtime(16)
    timeout_s: float = runtime(120.0)
    max_attempts: int = runtime(6)
    first_wait_s: float = runtime(0.5)
    max_wait_s: float = runtime(60.0)
    seed: int = runtime(0)

    def __post_init__(self) -> None:
        for name in ("concurrency", "max_attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1")
        if self.base_url is not None and not _host(self.base_url):
            raise ValueError("client.base_url must be a whole address, such as http://HOST:PORT/v1")
        if self.base_url is not None and "@" in urlsplit(self.base_url).netloc:
            raise ValueError(
                "client.base_url holds a user name or password: keep them out of the settings and "
                f"put the key into the environment variable {self.api_key_env}"
            )
        if self.timeout_s <= 0:
            raise ValueError("timeout_s: must be above 0")


@dataclass(frozen=True)
class Answer:
    """How one request ended: ok, refused, malformed, truncated, filtered, rate_limited, timed_out
    or failed.

    text: what the model said, as far as it got. model: as the provider names what it served.
    attempts: requests sent. tokens: as billed. seconds: from asking to outcome, waits included.
    replayed: it came from the journal; the other figures are those of the call that was paid.
    """

    status: str
    text: str = ""
    reason: str = ""
    model: str = ""
    attempts: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    replayed: bool = field(default=False, compare=False)


class Connection:
    """An open way to one model; see `connect`."""

    def __init__(self, settings: ClientSettings, client: openai.AsyncOpenAI, key: str) -> None:
        self._settings = settings
        self._client = client
        self._key = key
        self._provider = settings.provider or _host(str(client.base_url))

    async def ask(self, request: Request, journal: Journal) -> Answer:
        """The journaled answer to this request or, where there is none, the model's.

        Only transient failures are tried again, and only answers are journaled. Raises Unusable
        where no call can succeed.
        """
        body = request.body(self._settings.model)
        known_as = request_hash(body, self._provider)
        kept = await journal.answer(known_as)
        if kept is not None:
            return _from_journal(kept)
        begun = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            await journal.intend(known_as, self._settings.model)
            outcome = await self._send(body)
            if isinstance(outcome, Answer):
                answer = replace(outcome, attempts=attempt, seconds=time.monotonic() - begun)
                await journal.settle(known_as, _to_journal(answer))
                return answer
            if isinstance(outcome, Unusable):
                await journal.withdraw(known_as)
                raise outcome
            if not outcome.billed:
                await journal.withdraw(known_as)
            wait_s = self._wait_s(outcome, known_as, attempt)
            if wait_s is None:
                return Answer(
                    outcome.status,
                    reason=outcome.reason,
                    attempts=attempt,
                    seconds=time.monotonic() - begun,
                )
            await asyncio.sleep(wait_s)

    async def _send(self, body: dict[str, Any]) -> Answer | Failure | Unusable:
        settings = self._settings
        try:
            async with asyncio.timeout(settings.timeout_s):
                reply = await self._client.chat.completions.with_raw_response.create(**body)
        except (TimeoutError, openai.APITimeoutError):
            reason = f"no answer within {settings.timeout_s:g} s"
            return Failure("timed_out", reason, transient=True, billed=True)
        except openai.APIStatusError as error:
            failure = from_status(error, model=settings.model, api_key_env=settings.api_key_env)
        except openai.APIConnectionError as error:
            failure = from_connection(error)
        else:
            return _read_completion(reply.http_response.text)
        if isinstance(failure, Failure):
            # Some gateways put the request's own headers into their error messages.
            reason = _one_line(failure.reason.replace(self._key, "***"))
            if failure.status == "filtered":
                return Answer("filtered", reason=reason)
            return replace(failure, reason=reason)
        return failure

    def _wait_s(self, failure: Failure, known_as: str, attempt: int) -> float | None:
        """Seconds until the next attempt, or None where there shall be none."""
        settings = self._settings
        if not failure.transient or attempt == settings.max_attempts:
            return None
        # Drawn from the request as well, or all that fail together would come back together.
        jitter = random.Random(f"{settings.seed} {known_as} {attempt}").random()
        if failure.wait_s is not None:
            if failure.wait_s > settings.max_wait_s:
                return None  # It would be turned down again before that.
            return failure.wait_s + jitter * settings.first_wait_s
        longest = min(settings.first_wait_s * 2 ** (attempt - 1), settings.max_wait_s)
        return longest * (1 + jitter) / 2


@asynccontextmanager
async def connect(settings: ClientSettings) -> AsyncIterator[Connection]:
    """A connection for the running event loop, closed at the end.

    Raises Unusable, before anything is sent, where the key cannot be right.
    """
    key = read_key(settings.api_key_env)
    # Given always, for the library would else take it from the environment, unseen in the config.
    base_url = settings.base_url or _DEFAULT_BASE_URL
    async with openai.AsyncOpenAI(
        api_key=key, base_url=base_url, timeout=settings.timeout_s, max_retries=0
    ) as client:
        yield Connection(settings, client, key)


async def in_parallel(
    work: Callable[[T], Awaitable[R]], items: Iterable[T], concurrency: int
) -> list[R]:
    """`work` done on every item, at most `concurrency` at once; results in the items' order.

    Items are taken up as there is room, so their number costs nothing. The first exception stops
    all the rest and is raised.
    """
    results: dict[int, R] = {}
    waiting = enumerate(items)

    async def take() -> None:
        for place, item in waiting:
            results[place] = await work(item)

    takers = [asyncio.ensure_future(take()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*takers)
    finally:
        for taker in takers:
            taker.cancel()
        await asyncio.gather(*takers, return_exceptions=True)
    return [results[place] for place in range(len(results))]


def read_key(api_key_env: str) -> str:
    """The key in an environment variable. Raises Unusable, without the key, where it is none."""
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise Unusable(
            f"the environment variable {api_key_env} is not set: put the provider's key there, or "
            "name another in explain.client.api_key_env (a server that needs no key takes any)"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise Unusable(
            f"the environment variable {api_key_env} does not hold a key: it has spaces, line "
            "breaks or special characters within"
        )
    return key


def _host(base_url: str) -> str:
    return urlsplit(base_url).netloc.rpartition("@")[2].lower()


def _read_completion(text: str) -> Answer | Failure:
    """Read the body of a reply with status 200."""
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        message = choice["message"]
        said, refusal = message.get("content"), message.get("refusal")
        finish = choice.get("finish_reason")
        usage = body.get("usage") or {}
        answer = Answer(
            "ok",
            text=said if isinstance(said, str) else "",
            model=str(body.get("model", "")),
            tokens_in=int(usage.get("prompt_tokens") or 0),
            tokens_out=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"the provider's reply is no chat completion: {type(error).__name__}"
        return Failure("malformed", reason, billed=True)
    if refusal:
        return replace(answer, status="refused", reason=_one_line(str(refusal)))
    if finish == "content_filter":
        return replace(answer, status="filtered", reason="cut off by the provider's filter")
    if finish == "length":
        return replace(answer, status="truncated", reason="cut off at the limit on its length")
    if not answer.text.strip():
        return replace(answer, status="malformed", reason="the answer is empty")
    return answer


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_REASON_LENGTH]


def _to_journal(answer: Answer) -> str:
    kept = asdict(answer)
    del kept["replayed"]
    return json.dumps(kept, sort_keys=True)


def _from_journal(kept: str) -> Answer:
    known = {part.name for part in fields(Answer)}
    read = {name: value for name, value in json.loads(kept).items() if name in known}
    return Answer(**read, replayed=True)
