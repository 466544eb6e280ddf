"""Batch mode: submit requests as files; they cost less and are answered within a day.

The account stores each batch before it is submitted, and its id as soon as the provider returns
one. Our name for the batch is part of its metadata. So a batch whose id was lost in a crash is
found by name; a name that the provider does not know was never submitted.
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
    begin_batch,
    count_attempts,
    end_batch,
    open_batches,
    store_batch_id,
)
from neuron_atlas.tasks.models.account.ledger import Ledger
from neuron_atlas.tasks.models.account.messages import CallResult, FeatureReport
from neuron_atlas.tasks.models.answer import Answer, to_json
from neuron_atlas.tasks.models.batch_lines import parse_line, read_line, redact
from neuron_atlas.tasks.models.batch_provider import TRIES, BatchProvider, TransientError
from neuron_atlas.tasks.models.call_notices import notice_of
from neuron_atlas.tasks.models.failures import Failure, ProviderError, ProviderStoppedError
from neuron_atlas.tasks.models.negotiation import ALL_FEATURES, ServerFeatures, named_feature
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.request_file import FiledRequest, read_request_files
from neuron_atlas.tasks.models.send import open_client
from neuron_atlas.tasks.models.settings import ClientSettings, read_key

_ENDED = ("completed", "expired", "cancelled", "failed")
_QUEUE_IS_FULL = "token_limit_exceeded"


class _QueueFullError(Exception):
    """The account's queue had no space for a batch; the provider's message."""


class BatchSender:
    """Submits batches to one model and fetches their answers."""

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

        def note_wait(wait_s: float, reason: str) -> None:
            ledger.notices.add_wait(wait_s, settings.model, reason)

        self._provider = BatchProvider(settings, client, key, group, note_wait)
        self._key = key
        self._provider_account, self._group = settings.qualified_model, group

    async def submit(self, files: Sequence[Path]) -> int:
        """Submit the requests of some files as batches; return the number of submitted requests.

        Batches are split by count and bytes. A request over the budget is not sent and gets the
        status budget. Raises ProviderError, or ProviderStoppedError if the provider keeps failing.
        """
        submitted = 0
        for group in split_into_batches(read_request_files(files), self._settings):
            try:
                submitted += await self._submit(group)
            except TransientError as error:
                raise ProviderStoppedError(
                    f"no batch could be handed in, {TRIES} times: {error}; what was handed in "
                    "before is kept, and the same call goes on"
                ) from None
        return submitted

    async def fetch(self) -> int:
        """Settle the calls of batches that have ended; return the number of requests under way.

        A batch that cannot be fetched now is still under way. A batch that found the provider's
        queue full is submitted again. Raises ProviderError if every open batch found it full: the
        batch is too large. Raises ProviderStoppedError if the provider accepted a batch and then
        rejected its content.
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
            raise ProviderError(
                "a batch is too large for the account's queue: lower "
                f"{self._group}.client.batch.max_requests ({queue_full[0]})"
            )
        return under_way

    async def _submit(self, group: Sequence[FiledRequest]) -> int:
        name = uuid.uuid4().hex
        with self._ledger.transaction() as ledger:
            granted = begin_batch(ledger, name, self._provider_account, self._settings.model, group)
        if granted:
            provider_id = await self._provider.create(name, granted)
            with self._ledger.transaction() as ledger:
                store_batch_id(ledger, name, provider_id)
        return len(granted)

    async def _fetch(self, batch: OpenBatch) -> bool:
        """Settle a batch if it has ended; return whether it has."""
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
            raise ProviderStoppedError(str(unusable))
        if known.status == "failed":
            self._raise_failure(known)
        return True

    async def _recover(self, batch: OpenBatch) -> str | None:
        """Find the provider's id of a batch whose submission was interrupted.

        Returns None and ends the batch if the provider does not know it.
        """
        found = await self._provider.find(batch.name)
        with self._ledger.transaction() as ledger:
            if found is not None:
                store_batch_id(ledger, batch.name, found)
            else:
                for call in batch.calls.values():
                    ledger.settle(CallResult(call.call, "unsent"))
                end_batch(ledger, batch.name)
        return found

    def _settle(
        self, batch: OpenBatch, status: str, lines: Iterable[bytes]
    ) -> ProviderError | None:
        """Settle the calls of a batch by the lines of its output files, and close the batch.

        Returns the error that must stop the run, or None.
        """
        results: dict[str, CallResult] = {}
        final: dict[str, Failure] = {}
        torn: set[str] = set()  # Requests with a damaged line; "" for a line without a hash.
        unusable: ProviderError | None = None
        for line in lines:
            hashed, fields = parse_line(line)
            if fields is None:
                torn.add(hashed)
                continue
            call = batch.calls.get(hashed)
            if call is None or hashed in results:
                continue
            outcome = read_line(fields, call, self._settings, self._prices, self._key, self._group)
            if isinstance(outcome, ProviderError):
                unusable = unusable or outcome
                results[hashed] = CallResult(call.call, "unusable")
            elif isinstance(outcome, Answer):
                notice, after = notice_of(outcome, self._settings.model, self._group)
                results[hashed] = CallResult(
                    call.call,
                    outcome.status,
                    answer=to_json(outcome),
                    usd=outcome.usd,
                    tokens_in=outcome.tokens_in,
                    tokens_out=outcome.tokens_out,
                    notice=notice,
                    notice_after=after,
                )
            else:
                results[hashed] = CallResult(
                    call.call, outcome.kind, maybe_billed=outcome.billed and outcome.number is None
                )
                if not outcome.transient:
                    final[hashed] = outcome
        if status != "completed" and "" not in torn:
            # Unanswered requests were not billed. Those with a damaged line may have been.
            for hashed in batch.calls.keys() - results.keys() - torn:
                results[hashed] = CallResult(batch.calls[hashed].call, f"failed/{status}")
        with self._ledger.transaction() as ledger:
            final = self._without_refused_features(ledger, final)
            for result in results.values():
                ledger.settle(result)
            end_batch(ledger, batch.name)
            if unusable is None and status != "failed":
                final = self._given_up(batch) | final
            for hashed, failure in final.items():
                tried = count_attempts(ledger, hashed)
                answer = Answer(failure.status, reason=failure.reason, attempts=tried)
                ledger.set_final(hashed, to_json(answer))
        return unusable

    def _without_refused_features(
        self, ledger: Ledger, final: Mapping[str, Failure]
    ) -> dict[str, Failure]:
        """Store which features the server refuses; return the failures that are about none. The
        other requests are written again without the features."""
        about_none = {}
        known = ledger.update_features(FeatureReport(self._provider_account, ServerFeatures()))
        open_features = ALL_FEATURES - known.refused - known.works
        for hashed, failure in final.items():
            name = named_feature(failure, open_features)
            if name is None:
                about_none[hashed] = failure
            else:
                found = ServerFeatures(refused=frozenset({name}))
                ledger.update_features(FeatureReport(self._provider_account, found))
        return about_none

    def _given_up(self, batch: OpenBatch) -> dict[str, Failure]:
        """Return a failure for each request that max_attempts batches left unanswered."""
        most = self._settings.max_attempts
        failure = Failure("timed_out", f"not answered by {most} batches")
        return {
            hashed: failure
            for hashed in batch.calls
            if self._ledger.look_up(hashed) is None and count_attempts(self._ledger, hashed) >= most
        }

    def _raise_failure(self, known: Batch) -> NoReturn:
        """Raise the reason why the provider refused a batch as a whole."""
        errors = (known.errors.data if known.errors else None) or []
        codes = {error.code or "" for error in errors}
        reason = "; ".join(error.message or "" for error in errors) or "no reason given"
        reason = redact(reason, self._key)
        if codes == {_QUEUE_IS_FULL}:
            raise _QueueFullError(reason)
        raise ProviderStoppedError(f"the provider refuses a batch: {reason}")


@asynccontextmanager
async def open_batch_sender(
    settings: ClientSettings,
    prices: Mapping[str, Price],
    ledger: Ledger,
    group: str = "explain",
) -> AsyncIterator[BatchSender]:
    """Open a sender for the running event loop; group: see `CallOptions`. Raises ProviderError
    if the key is missing or malformed."""
    key = read_key(settings.api_key_env, group)
    async with open_client(settings, key) as client:
        yield BatchSender(settings, prices, ledger, client, key, group)


def split_into_batches(
    requests: Iterable[FiledRequest], settings: ClientSettings
) -> Iterable[list[FiledRequest]]:
    """Yield groups of requests within the count and byte limits of a batch."""
    group: list[FiledRequest] = []
    size = 0
    for request in requests:
        is_full = len(group) == settings.batch.max_requests
        if group and (is_full or size + request.length > settings.batch.max_bytes):
            yield group
            group, size = [], 0
        group.append(request)
        size += request.length
    if group:
        yield group
