"""Client of a provider's file and batch endpoints."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import openai
from openai.types import Batch

from neuron_atlas.tasks.models.batch_lines import redact, write_line
from neuron_atlas.tasks.models.failures import ProviderError, ProviderStoppedError, from_status
from neuron_atlas.tasks.models.request_file import FiledRequest
from neuron_atlas.tasks.models.settings import ClientSettings

T = TypeVar("T")

TRIES = 6
_NAME = "neuron_atlas_batch"


class TransientError(Exception):
    """A request to the provider failed, and may succeed later."""


class BatchProvider:
    """Client of a provider's file and batch endpoints. All methods raise ProviderError, or
    TransientError if a retry may succeed. key: masked in the provider's messages. group: see
    `CallOptions`. note_wait: called with the seconds of each wait, and its reason."""

    def __init__(
        self,
        settings: ClientSettings,
        client: openai.AsyncOpenAI,
        key: str,
        group: str,
        note_wait: Callable[[float, str], None] = lambda wait_s, reason: None,
    ) -> None:
        self._settings, self._client, self._key = settings, client, key
        self._group, self._note_wait = group, note_wait

    async def create(self, name: str, requests: Sequence[FiledRequest]) -> str:
        """Upload requests and create their batch, with retries; return the batch's id."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.jsonl"
            with path.open("wb") as stream:
                for one in requests:
                    stream.write(write_line(one, self._settings))
            # Uploading a file twice costs nothing.
            uploaded = await self._patiently(
                lambda _: self._call(self._client.files.create(file=path, purpose="batch"))
            )

        async def create(attempt: int) -> Batch:
            found = await self._find(name) if attempt else None
            return found or await self._call(
                self._client.batches.create(
                    input_file_id=uploaded.id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={_NAME: name},
                )
            )

        return (await self._patiently(create)).id

    async def find(self, name: str) -> str | None:
        """Return the id of the batch with this name in its metadata, or None."""
        found = await self._find(name)
        return found.id if found else None

    async def retrieve(self, provider_id: str) -> Batch:
        """Return the current state of a batch."""
        return await self._call(self._client.batches.retrieve(provider_id))

    async def lines(self, file_id: str) -> list[bytes]:
        """Return the non-empty lines of a file."""
        content = await self._call(self._client.files.content(file_id))
        # Not splitlines(): it also splits at characters that JSON strings may contain unescaped.
        return [line for line in content.content.split(b"\n") if line.strip()]

    async def _find(self, name: str) -> Batch | None:
        page = await self._call(self._client.batches.list(limit=100))
        while True:
            for known in page.data:
                if (known.metadata or {}).get(_NAME) == name:
                    return known
            if not page.has_next_page():
                return None
            page = await self._call(page.get_next_page())

    async def _patiently(self, step: Callable[[int], Awaitable[T]]) -> T:
        """Call `step` with the number of the attempt until it succeeds, at most TRIES times."""
        for attempt in range(TRIES):
            try:
                return await step(attempt)
            except TransientError as error:
                if attempt == TRIES - 1:
                    raise
                self._note_wait(self._settings.batch.poll_s, str(error))
                await asyncio.sleep(self._settings.batch.poll_s)
        raise AssertionError("the last attempt returns or raises")

    async def _call(self, call: Awaitable[Any]) -> Any:
        settings = self._settings
        failure: ProviderError | TransientError
        try:
            return await call
        except openai.APIStatusError as error:
            read = from_status(error, settings.model, settings.api_key_env, self._group, self._key)
            if isinstance(read, ProviderError):
                # Credit may run out after days of a run; the configuration is right then.
                codes = (error.code, error.type)
                no_quota = error.status_code == 402 or "insufficient_quota" in codes
                failure = ProviderStoppedError(str(read)) if no_quota else read
            elif read.transient:
                failure = TransientError(redact(read.reason, self._key))
            else:
                failure = ProviderError(
                    f"the provider refuses a batch: {redact(read.reason, self._key)}"
                )
        except openai.APIConnectionError as error:
            failure = TransientError(f"{type(error.__cause__ or error).__name__}")
        raise failure  # Outside `except`, so that the request is not chained to it.
