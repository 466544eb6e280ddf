"""Batch mode: requests handed in as files, at a share of the price, answered within a day.

A batch is journaled before anything of it is sent, and its ids as soon as they are known. It
carries the name that it has in the journal, so a batch whose id was lost with the process that made
it is found again at the provider's.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
from openai.types import Batch

from tasks.llm.answer import Answer, one_line, read_message, to_journal
from tasks.llm.batch_journal import BatchJournal, OpenBatch
from tasks.llm.failures import Failure, Unusable, from_reply, from_status
from tasks.llm.journal import Spent
from tasks.llm.prices import Price, cost
from tasks.llm.send import open_client
from tasks.llm.settings import ClientSettings, read_key
from tasks.llm.spool import Spooled, read_spools

_NAME = "neuron_atlas_batch"
_ENDED = ("completed", "expired", "cancelled", "failed")
_TRIES = 6
_QUEUE_IS_FULL = "token_limit_exceeded"


class BatchSender:
    """Hands batches in and fetches their answers, for one model."""

    def __init__(
        self,
        settings: ClientSettings,
        prices: Mapping[str, Price],
        journal: BatchJournal,
        client: openai.AsyncOpenAI,
        key: str,
    ) -> None:
        self._settings, self._prices, self._journal = settings, prices, journal
        self._client, self._key = client, key

    async def hand_in(self, spools: Sequence[Path]) -> int:
        """Hand in the requests of some spools as batches; the number of requests.

        They are split by count and bytes. Those over the budget are left out, which is their
        outcome.
        """
        handed_in = 0
        for group in split(read_spools(spools), self._settings):
            handed_in += await self._hand_in(group)
        return handed_in

    async def look(self) -> int:
        """Fetch what has been answered; the number of requests that are still under way."""
        under_way = 0
        for batch in await self._journal.open_batches():
            ended = await self._fetch(batch)
            under_way += 0 if ended else len(batch.calls)
        return under_way

    async def _hand_in(self, group: Sequence[Spooled]) -> int:
        name = uuid.uuid4().hex
        granted = await self._journal.begin_batch(name, self._settings.model, group)
        if granted:
            (batch,) = [b for b in await self._journal.open_batches() if b.name == name]
            await self._create(replace(batch, input_file=await self._upload(name, granted)))
        return len(granted)

    async def _upload(self, name: str, granted: Sequence[Spooled]) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.jsonl"
            with path.open("wb") as stream:
                for one in granted:
                    stream.write(self._line(one))
            # A file that is uploaded twice costs nothing, so the library may try again.
            uploaded = await self._told(
                self._client.with_options(max_retries=_TRIES).files.create(
                    file=path, purpose="batch"
                )
            )
        await self._journal.note_file(name, uploaded.id)
        return uploaded.id

    def _line(self, spooled: Spooled) -> bytes:
        line = {
            "custom_id": spooled.request_hash,
            "method": "POST",
            "url": "/chat/completions" if self._settings.azure else "/v1/chat/completions",
            "body": self._settings.addressed(spooled.body()),
        }
        return json.dumps(line).encode() + b"\n"

    async def _create(self, batch: OpenBatch) -> str:
        """Make the batch at the provider's, unless it is there already; its id."""
        assert batch.input_file is not None
        for attempt in range(_TRIES):
            found = await self._find(batch.name) if attempt else None
            try:
                made = found or await self._told(
                    self._client.batches.create(
                        input_file_id=batch.input_file,
                        endpoint="/v1/chat/completions",
                        completion_window="24h",
                        metadata={_NAME: batch.name},
                    )
                )
            except _Transient as error:
                if attempt == _TRIES - 1:
                    raise Unusable(f"no batch could be handed in: {error}") from None
                await asyncio.sleep(self._settings.batch.poll_s)
                continue
            await self._journal.note_batch(batch.name, made.id)
            return made.id
        raise AssertionError("the last attempt returns or raises")

    async def _find(self, name: str) -> Batch | None:
        async for known in self._client.with_options(max_retries=_TRIES).batches.list(limit=100):
            if (known.metadata or {}).get(_NAME) == name:
                return known
        return None

    async def _fetch(self, batch: OpenBatch) -> bool:
        """Settle what there is of a batch if it has ended; whether it has."""
        provider_id = batch.provider_id or await self._recover(batch)
        if provider_id is None:
            return True
        client = self._client.with_options(max_retries=_TRIES)
        known = await self._told(client.batches.retrieve(provider_id))
        if known.status not in _ENDED:
            return False
        for file_id in (known.output_file_id, known.error_file_id):
            if file_id:
                content = await self._told(client.files.content(file_id))
                await self._settle(batch, content.text.splitlines())
        if known.status in ("failed", "expired", "cancelled"):
            # What was not answered was not billed.
            left = [b for b in await self._journal.open_batches() if b.name == batch.name]
            await self._journal.settle_many(
                [],
                [(call, f"failed/{known.status}") for one in left for call in one.calls.values()],
            )
        await self._journal.end_batch(batch.name)
        if known.status == "failed":
            await self._judge_failure(known)
        await self._give_up(batch)
        return True

    async def _recover(self, batch: OpenBatch) -> str | None:
        """The provider's id of a batch that was being handed in when the program was killed."""
        found = await self._find(batch.name)
        if found is not None:
            await self._journal.note_batch(batch.name, found.id)
            return found.id
        if batch.input_file is not None:
            return await self._create(batch)
        await self._journal.settle_many([], [(call, "unsent") for call in batch.calls.values()])
        await self._journal.end_batch(batch.name)
        return None

    async def _settle(self, batch: OpenBatch, lines: Iterable[str]) -> None:
        settled: list[tuple[int, str, Spent]] = []
        failed: list[tuple[int, str]] = []
        for line in lines:
            told = json.loads(line)
            known_as = told.get("custom_id")
            call = batch.calls.get(known_as)
            if call is None:
                continue
            outcome = self._read(told)
            if isinstance(outcome, Unusable):
                await self._journal.settle_many(settled, failed)
                raise outcome
            if isinstance(outcome, Answer):
                spent = Spent(outcome.status, outcome.usd, outcome.tokens_in, outcome.tokens_out)
                settled.append((call, to_journal(outcome), spent))
                continue
            failed.append((call, outcome.kind))
            if not outcome.transient:
                await self._rule(known_as, outcome)
        await self._journal.settle_many(settled, failed)

    def _read(self, told: Mapping[str, Any]) -> Answer | Failure | Unusable:
        """One line of a batch's output or errors."""
        response, error = told.get("response"), told.get("error")
        if not response:
            code = str((error or {}).get("code") or "error")
            said = one_line(f"batch {code}: {(error or {}).get('message', '')}")
            return Failure("timed_out" if code == "batch_expired" else "failed", said, True)
        if response.get("status_code") != 200:
            outcome = from_reply(
                int(response.get("status_code") or 500),
                (response.get("body") or {}).get("error") or {},
                model=self._settings.model,
                api_key_env=self._settings.api_key_env,
            )
            if isinstance(outcome, Unusable):
                return outcome
            outcome = replace(outcome, reason=one_line(outcome.reason.replace(self._key, "***")))
            if outcome.status == "filtered":
                return Answer("filtered", reason=outcome.reason, attempts=1)
            return outcome
        answer = read_message(response.get("body"))
        if isinstance(answer, Failure):
            return answer
        price = self._prices.get(self._settings.model)
        usd = cost(self._prices, self._settings.model, answer.tokens_in, answer.tokens_out)
        if usd is not None and price is not None:
            usd *= price.batch
        return replace(answer, usd=usd, attempts=1)

    async def _judge_failure(self, known: Batch) -> None:
        """Raise Unusable where handing the same in again cannot help."""
        errors = (known.errors.data if known.errors else None) or []
        codes = {error.code or "" for error in errors}
        said = one_line("; ".join(error.message or "" for error in errors) or "it does not say why")
        if codes == {_QUEUE_IS_FULL}:
            if await self._journal.open_batches():
                return  # It is handed in again once the others are through.
            raise Unusable(
                f"a batch is too large for the account's queue: lower client.batch.max_requests "
                f"({said})"
            )
        raise Unusable(f"the provider refuses a batch: {said.replace(self._key, '***')}")

    async def _give_up(self, batch: OpenBatch) -> None:
        """Let those requests rest that have come back without an answer too often."""
        for known_as in batch.calls:
            if await self._journal.answer(known_as) is not None:
                continue
            if await self._journal.attempts(known_as) >= self._settings.max_attempts:
                reason = f"not answered by {self._settings.max_attempts} batches"
                await self._rule(known_as, Failure("timed_out", reason))

    async def _rule(self, known_as: str, failure: Failure) -> None:
        attempts = await self._journal.attempts(known_as)
        answer = Answer(failure.status, reason=failure.reason, attempts=attempts)
        await self._journal.rule(known_as, to_journal(answer))

    async def _told(self, call: Any) -> Any:
        """A call that is no completion. Raises Unusable, or _Transient where it may yet succeed."""
        settings = self._settings
        failure: Unusable | _Transient
        try:
            return await call
        except openai.APIStatusError as error:
            read = from_status(error, model=settings.model, api_key_env=settings.api_key_env)
            if isinstance(read, Unusable):
                failure = read
            elif read.transient:
                failure = _Transient(read.reason.replace(self._key, "***"))
            else:
                said = one_line(read.reason.replace(self._key, "***"))
                failure = Unusable(f"the provider refuses a batch: {said}")
        except openai.APIConnectionError as error:
            failure = _Transient(f"{type(error.__cause__ or error).__name__}")
        raise failure


class _Transient(Exception):
    """It may succeed later."""


@asynccontextmanager
async def batch_sender(
    settings: ClientSettings, prices: Mapping[str, Price], journal: BatchJournal
) -> AsyncIterator[BatchSender]:
    """A sender for the running event loop. Raises Unusable where the key cannot be right."""
    key = read_key(settings.api_key_env)
    async with open_client(settings, key) as client:
        yield BatchSender(settings, prices, journal, client, key)


def split(spooled: Iterable[Spooled], settings: ClientSettings) -> Iterable[list[Spooled]]:
    """Groups that fit a batch by their count and their bytes."""
    group: list[Spooled] = []
    size = 0
    for one in spooled:
        is_full = len(group) == settings.batch.max_requests
        if group and (is_full or size + one.length > settings.batch.max_bytes):
            yield group
            group, size = [], 0
        group.append(one)
        size += one.length
    if group:
        yield group
