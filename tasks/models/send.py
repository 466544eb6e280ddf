"""Send one attempt of a request, and read its outcome."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import openai

from neuron_atlas.tasks.models.account.messages import Usage
from neuron_atlas.tasks.models.answer import Answer, no_completion, parse_reply, read_message
from neuron_atlas.tasks.models.clean_text import mask_key, one_line
from neuron_atlas.tasks.models.error_message import has_error
from neuron_atlas.tasks.models.failures import (
    FINAL_STATUSES,
    Failure,
    ProviderError,
    from_connection,
    from_reply,
    from_status,
)
from neuron_atlas.tasks.models.headers import processing_s, read_hint, retry_after
from neuron_atlas.tasks.models.request import Extract
from neuron_atlas.tasks.models.servers import Servers
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.tasks.models.tokens import TokenBound
from neuron_atlas.tasks.models.usage import is_absurd

_ARRIVES_WITHIN_S = 2.0
"""Time after which a call has reached the provider, if its reply has no processing time."""
_CONNECTS_WITHIN_S = 10.0
"""Connection timeout: a dead machine may not even refuse a connection."""
_LONGEST_PAUSE_S = 86_400.0
"""Longest pause to obey: providers have no limits over more than a day."""


@dataclass(frozen=True)
class PreparedRequest:
    """A request to send. bound: the most tokens it can use. affinity, extract: see `Request`."""

    request_hash: str
    body: Mapping[str, Any]
    bound: TokenBound
    affinity: str = ""
    extract: Extract | None = None


SendResult = Answer | Failure | ProviderError


class Sender:
    """Sends attempts to `servers` and masks their key in error messages.

    open_client: returns the openai client for an address. group: see `CallOptions`.
    """

    def __init__(
        self,
        settings: ClientSettings,
        servers: Servers,
        open_client: Callable[[str], openai.AsyncOpenAI],
        group: str,
    ) -> None:
        self._settings, self._servers, self._group = settings, servers, group
        self._open_client = open_client
        self._clients: dict[str, openai.AsyncOpenAI] = {}

    async def ready(self) -> None:
        """Wait until there is a server to send to. Raises ProviderStoppedError if there will be
        none."""
        await self._servers.ready()

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.close()

    async def send(self, prepared: PreparedRequest) -> tuple[SendResult, Usage]:
        """Send a request once; return its outcome and what it used of the limits."""
        settings = self._settings
        sent_at = time.monotonic()
        headers: Mapping[str, str] = {}
        outcome: SendResult
        servers = self._servers
        server = servers.choose(prepared.affinity or prepared.request_hash)
        body = settings.body_for_provider(prepared.body)
        try:
            async with asyncio.timeout(settings.timeout_s):
                client = self._client(server)
                reply = await client.chat.completions.with_raw_response.create(
                    model=body["model"],
                    # The library walks through `messages`, images included, which is slow. It sends
                    # extra_body unchanged, with fields that it does not know.
                    messages=[],
                    extra_body=body,
                    extra_headers={"X-Client-Request-Id": prepared.request_hash},
                )
        except TimeoutError:
            outcome = self._timed_out(server)
        except openai.APITimeoutError as error:
            outcome = from_connection(error)
            if outcome.reached:
                outcome = self._timed_out(server)
        except openai.APIStatusError as error:
            servers.mark_answered(server)
            headers = error.response.headers
            outcome = from_status(
                error, settings.model, settings.api_key_env, self._group, servers.key
            )
        except openai.APIConnectionError as error:
            outcome = from_connection(error)
        else:
            servers.mark_answered(server)
            headers = reply.headers
            outcome = self._read(reply.http_response.text, prepared)
            if isinstance(outcome, Failure) and outcome.wait_s is None:
                outcome = replace(outcome, wait_s=retry_after(headers))
        if isinstance(outcome, Failure):
            outcome = self._at(server, outcome)
            outcome = replace(outcome, reason=one_line(mask_key(outcome.reason, servers.key)))
        usage = self._usage(prepared, outcome, headers, time.monotonic() - sent_at)
        if isinstance(outcome, Failure) and outcome.status in FINAL_STATUSES:
            outcome = Answer(outcome.status, reason=outcome.reason)
        return outcome, usage

    def _read(self, text: str, prepared: PreparedRequest) -> SendResult:
        """Read the body of a reply with status 200, which may hold an error."""
        try:
            body = parse_reply(text)
        except ValueError:
            return no_completion(mask_key(text, self._servers.key))
        settings = self._settings
        if has_error(body):
            return from_reply(
                None, body, settings.model, settings.api_key_env, self._group, self._servers.key
            )
        answer = read_message(body, prepared.extract)
        return answer if isinstance(answer, Failure) else _with_usage(answer, prepared.bound)

    def wait_s(self, failure: Failure, request_hash: str, attempt: int) -> float | None:
        """Return the seconds until the next attempt, or None if there is none."""
        settings = self._settings
        if not failure.transient or attempt == settings.max_attempts:
            return None
        # Seeded by the request too, so that calls that fail together are not retried together.
        jitter = random.Random(f"{settings.jitter_seed} {request_hash} {attempt}").random()
        if failure.wait_s is not None:
            if failure.wait_s > settings.max_backoff_s:
                return None  # Any earlier attempt would be rejected too.
            return failure.wait_s + jitter * settings.backoff_s
        longest = min(settings.backoff_s * 2 ** (attempt - 1), settings.max_backoff_s)
        return longest * (1 + jitter) / 2

    def _client(self, base_url: str) -> openai.AsyncOpenAI:
        if base_url not in self._clients:
            self._clients[base_url] = self._open_client(base_url)
        return self._clients[base_url]

    def _timed_out(self, server: str) -> Failure:
        self._servers.mark_timed_out(server, self._settings.timeout_s)
        reason = f"no answer within {self._settings.timeout_s:g} s"
        return Failure("timed_out", reason, transient=True, billed=True)

    def _at(self, server: str, failure: Failure) -> Failure:
        """Return the failure, adjusted to its server: our own server bills nothing, and an
        unreachable server may not count against max_attempts."""
        if not failure.reached:
            failure = replace(failure, not_counted=self._servers.mark_unreachable(server))
        return replace(failure, billed=False) if self._servers.is_own else failure

    def _usage(
        self,
        prepared: PreparedRequest,
        outcome: SendResult,
        headers: Mapping[str, str],
        took_s: float,
    ) -> Usage:
        worked_s = processing_s(headers)
        # The call reached the provider this long ago, at least.
        age_s = took_s - _ARRIVES_WITHIN_S if worked_s is None else min(worked_s, took_s)
        usage = Usage(age_s=max(age_s, 0.0), hint=read_hint(headers))
        if isinstance(outcome, Answer) and outcome.tokens_in:
            is_asked = self._settings.limits.counted_tokens == "requested"
            out = prepared.bound.tokens_out if is_asked else outcome.tokens_out
            return replace(usage, tokens=outcome.tokens_in + out)
        if isinstance(outcome, Failure) and not outcome.reached:
            return replace(usage, sent=False)
        if isinstance(outcome, Failure) and outcome.status == "rate_limited":
            pause_s = self.wait_s(outcome, prepared.request_hash, 0)
            if pause_s is None:  # Too long for this request, but later requests wait.
                pause_s = min(outcome.wait_s or 0.0, _LONGEST_PAUSE_S)
            return replace(usage, pause_s=pause_s)
        return usage


def _with_usage(answer: Answer, bound: TokenBound) -> Answer:
    """Return an answer with plausible tokens: without any, it counts at the most that it can have
    used, since a gateway that reports no usage still charges."""
    tokens_in, tokens_out, note = answer.tokens_in, answer.tokens_out, answer.usage_note
    if is_absurd(tokens_in, bound.tokens_in) or is_absurd(tokens_out, bound.tokens_out):
        note = f"the reply states prompt_tokens {tokens_in}, completion_tokens {tokens_out}"
    if tokens_in and not note and (tokens_out or not answer.text):
        return answer
    return replace(answer, tokens_in=bound.tokens_in, tokens_out=bound.tokens_out, usage_note=note)


def open_client(
    settings: ClientSettings, key: str, base_url: str | None = None, *, direct: bool = False
) -> openai.AsyncOpenAI:
    """Return an openai client for these settings, without its own retries.

    base_url: replaces the address in the settings. direct: use no proxy.
    """
    timeout = openai.Timeout(settings.timeout_s, connect=_CONNECTS_WITHIN_S)
    common: dict[str, Any] = {"api_key": key, "timeout": timeout, "max_retries": 0}
    if direct:
        common["http_client"] = openai.DefaultAsyncHttpxClient(trust_env=False)
    if settings.azure is not None:
        return openai.AsyncAzureOpenAI(
            azure_endpoint=settings.azure.endpoint,
            api_version=settings.azure.api_version,
            **common,
        )
    # Always given: else the library reads an address from the environment.
    return openai.AsyncOpenAI(base_url=base_url or settings.url, **common)
