"""Batch mode: requests handed in as files, at a share of the price, answered within a day.

The account stores a batch before any of it is sent, and its id as soon as that is known. The
provider is told our name for it, so a batch whose id was lost with its process is found again; one
that the provider does not know was never handed in.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import openai
from openai.types import Batch

from neuron_atlas.tasks.models.account.batches import (
    OpenBatch,
    attempts,
    begin_batch,
    end_batch,
    note_id,
    open_batches,
)
from neuron_atlas.tasks.models.account.ledger import Ledger
from neuron_atlas.tasks.models.account.messages import Result
from neuron_atlas.tasks.models.answer import Answer, to_json
from neuron_atlas.tasks.models.batch_lines import blotted, parse_line, read_line
from neuron_atlas.tasks.models.batch_provider import TRIES, BatchProvider, TransientError
from neuron_atlas.tasks.models.failures import Failure, Stopped, Unusable
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request_file import FiledRequest, read_request_files
from neuron_atlas.tasks.models.send import open_client
from neuron_atlas.tasks.models.settings import ClientSettings, read_key

_ENDED = ("completed", "expired", "cancelled", "failed")
_QUEUE_IS_FULL = "token_limit_exceeded"


class _QueueFullError(Exception):
    """The account's queue had no space for a batch; the provider's message."""


class BatchSender:
    """Hands batches in and fetches their answers, for one model."""

    def __init__(
        self,
        settings: ClientSettings,
        prices: Mapping[str, Price],
        ledger: Ledger,
        client: openai.AsyncOpenAI,
        key: str,
        group: str,
    ) -> None:
        self._settings, self._prices, self._ledger = settings, prices, ledger
        self._provider, self._key = BatchProvider(settings, client, key, group), key
        self._provider_account, self._group = settings.model_at, group

    async def hand_in(self, files: Sequence[Path]) -> int:
        """Hand in the requests of some files as batches; return the number of requests.

        They are split by count and bytes. Requests over the budget are left out, which is their
        outcome. Raises Unusable, or Stopped where the provider fails for long.
        """
        handed_in = 0
        for group in split(read_request_files(files), self._settings):
            try:
                handed_in += await self._hand_in(group)
            except TransientError as error:
                raise Stopped(
                    f"no batch could be handed in, {TRIES} times: {error}; what was handed in "
                    "before is kept, and the same call goes on"
                ) from None
        return handed_in

    async def fetch(self) -> int:
        """Settle what batches have answered; return the number of requests under way.

        A batch that cannot be fetched now is still under way. One that found the account's queue
        full is handed in again, unless no other batch filled it: then it is too large. Raises
        Unusable, or Stopped where the provider has taken a batch and then refused what is in it.
        """
        under_way = 0
        with self._ledger.transaction() as ledger:
            batches = open_batches(ledger, self._provider_account)
        queue_full: list[_QueueFullError] = []
        for batch in batches:
            try:
                ended = await self._fetch(batch)
            except TransientError:
                ended = False
            except _QueueFullError as error:
                queue_full.append(error)
                ended = True
            under_way += 0 if ended else len(batch.calls)
        if queue_full and len(queue_full) == len(batches):
            raise Unusable(
                "a batch is too large for the account's queue: lower "
                f"{self._group}.client.batch.max_requests ({queue_full[0]})"
            )
        return under_way

    async def _hand_in(self, group: Sequence[FiledRequest]) -> int:
        name = uuid.uuid4().hex
        with self._ledger.transaction() as ledger:
            granted = begin_batch(ledger, name, self._provider_account, self._settings.model, group)
        if granted:
            provider_id = await self._provider.create(name, granted)
            with self._ledger.transaction() as ledger:
                note_id(ledger, name, provider_id)
        return len(granted)

    async def _fetch(self, batch: OpenBatch) -> bool:
        """Settle what there is of a batch if it has ended; whether it has."""
        provider_id = batch.provider_id or await self._recover(batch)
        if provider_id is None:
            return True
        known = await self._provider.retrieve(provider_id)
        if known.status not in _ENDED:
            return False
        lines: list[bytes] = []
        for file_id in (known.output_file_id, known.error_file_id):
            if file_id:
                lines += await self._provider.lines(file_id)
        unusable = self._settle(batch, known.status, lines)
        if unusable is not None:
            raise Stopped(str(unusable))
        if known.status == "failed":
            self._raise_failure(known)
        return True

    async def _recover(self, batch: OpenBatch) -> str | None:
        """The provider's id of a batch that was being handed in when the program was killed."""
        found = await self._provider.find(batch.name)
        with self._ledger.transaction() as ledger:
            if found is not None:
                note_id(ledger, batch.name, found)
            else:
                for call in batch.calls.values():
                    ledger.settle(Result(call.call, "unsent"))
                end_batch(ledger, batch.name)
        return found

    def _settle(self, batch: OpenBatch, status: str, lines: Iterable[bytes]) -> Unusable | None:
        """End a batch: settle its calls by the lines that tell of them.

        Returns what stops the run, if a line says so.
        """
        results: dict[str, Result] = {}
        final: dict[str, Failure] = {}
        torn: set[str] = set()  # "" where it is not known whose line it is.
        unusable: Unusable | None = None
        for line in lines:
            known_as, fields = parse_line(line)
            if fields is None:
                torn.add(known_as)
                continue
            call = batch.calls.get(known_as)
            if call is None or known_as in results:
                continue
            outcome = read_line(fields, call, self._settings, self._prices, self._key, self._group)
            if isinstance(outcome, Unusable):
                unusable = unusable or outcome
                results[known_as] = Result(call.call, "unusable")
            elif isinstance(outcome, Answer):
                results[known_as] = Result(
                    call.call,
                    outcome.status,
                    answer=to_json(outcome),
                    usd=outcome.usd,
                    tokens_in=outcome.tokens_in,
                    tokens_out=outcome.tokens_out,
                )
            else:
                results[known_as] = Result(call.call, outcome.kind)
                if not outcome.transient:
                    final[known_as] = outcome
        if status != "completed" and "" not in torn:
            # What was not answered was not billed; of what is torn, nobody knows.
            for known_as in batch.calls.keys() - results.keys() - torn:
                results[known_as] = Result(batch.calls[known_as].call, f"failed/{status}")
        with self._ledger.transaction() as ledger:
            for result in results.values():
                ledger.settle(result)
            end_batch(ledger, batch.name)
            if unusable is None and status != "failed":
                final = self._given_up(batch) | final
            for known_as, failure in final.items():
                tried = attempts(ledger, known_as)
                answer = Answer(failure.status, reason=failure.reason, attempts=tried)
                ledger.set_final(known_as, to_json(answer))
        return unusable

    def _given_up(self, batch: OpenBatch) -> dict[str, Failure]:
        """Requests that have come back without an answer too often."""
        most = self._settings.max_attempts
        failure = Failure("timed_out", f"not answered by {most} batches")
        return {
            known_as: failure
            for known_as in batch.calls
            if self._ledger.look_up(known_as) is None and attempts(self._ledger, known_as) >= most
        }

    def _raise_failure(self, known: Batch) -> NoReturn:
        """Raise the reason why the provider refused a batch as a whole."""
        errors = (known.errors.data if known.errors else None) or []
        codes = {error.code or "" for error in errors}
        said = "; ".join(error.message or "" for error in errors) or "it does not say why"
        said = blotted(said, self._key)
        if codes == {_QUEUE_IS_FULL}:
            raise _QueueFullError(said)
        raise Stopped(f"the provider refuses a batch: {said}")


@asynccontextmanager
async def batch_sender(
    settings: ClientSettings,
    prices: Mapping[str, Price],
    ledger: Ledger,
    group: str = "explain",
) -> AsyncIterator[BatchSender]:
    """A sender for the running event loop; group: see `Calls`. Raises Unusable where the key cannot
    be right."""
    key = read_key(settings.api_key_env, group)
    async with open_client(settings, key) as client:
        yield BatchSender(settings, prices, ledger, client, key, group)


def split(
    spooled: Iterable[FiledRequest], settings: ClientSettings
) -> Iterable[list[FiledRequest]]:
    """Groups that fit a batch by their count and their bytes."""
    group: list[FiledRequest] = []
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
