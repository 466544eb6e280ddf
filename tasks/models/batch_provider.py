"""The files and batches of a provider."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import openai
from openai.types import Batch

from neuron_atlas.tasks.models.batch_lines import blotted, write_line
from neuron_atlas.tasks.models.failures import Stopped, Unusable, from_status
from neuron_atlas.tasks.models.request_file import FiledRequest
from neuron_atlas.tasks.models.settings import ClientSettings

T = TypeVar("T")

TRIES = 6
_NAME = "neuron_atlas_batch"


class TransientError(Exception):
    """It may succeed later."""


class BatchProvider:
    """A provider's files and batches. All methods raise Unusable, or TransientError where trying
    again may succeed. key: removed from the provider's messages. group: of the settings."""

    def __init__(
        self, settings: ClientSettings, client: openai.AsyncOpenAI, key: str, group: str
    ) -> None:
        self._settings, self._client, self._key = settings, client, key
        self._group = group

    async def create(self, name: str, requests: Sequence[FiledRequest]) -> str:
        """Upload a batch's requests and make the batch, each in several attempts; its id."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.jsonl"
            with path.open("wb") as stream:
                for one in requests:
                    stream.write(write_line(one, self._settings))
            # A file that is uploaded twice costs nothing.
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
        """The id of the batch that was given this name."""
        found = await self._find(name)
        return found.id if found else None

    async def retrieve(self, provider_id: str) -> Batch:
        """What there is to know of a batch."""
        return await self._call(self._client.batches.retrieve(provider_id))

    async def lines(self, file_id: str) -> list[bytes]:
        """The lines of a file."""
        content = await self._call(self._client.files.content(file_id))
        # Not splitlines(), which also cuts at characters that JSON may hold as they are.
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
        """Take a step, given the number of the attempt, until it succeeds."""
        for attempt in range(TRIES):
            try:
                return await step(attempt)
            except TransientError:
                if attempt == TRIES - 1:
                    raise
                await asyncio.sleep(self._settings.batch.poll_s)
        raise AssertionError("the last attempt returns or raises")

    async def _call(self, call: Awaitable[Any]) -> Any:
        settings = self._settings
        failure: Unusable | TransientError
        try:
            return await call
        except openai.APIStatusError as error:
            read = from_status(error, settings.model, settings.api_key_env, self._group)
            if isinstance(read, Unusable):
                # Credit runs out in a run of days, and then nothing is wrong with the call.
                codes = (error.code, error.type)
                no_quota = error.status_code == 402 or "insufficient_quota" in codes
                failure = Stopped(str(read)) if no_quota else read
            elif read.transient:
                failure = TransientError(blotted(read.reason, self._key))
            else:
                failure = Unusable(
                    f"the provider refuses a batch: {blotted(read.reason, self._key)}"
                )
        except openai.APIConnectionError as error:
            failure = TransientError(f"{type(error.__cause__ or error).__name__}")
        raise failure  # Not where the error is handled, or the request would be chained to it.
