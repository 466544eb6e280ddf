"""The driver's side of a stage that calls a model: its account and batches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from neuron_atlas.tasks.artifacts.location import remove_folder
from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.prices import Price, price_of
from neuron_atlas.tasks.models.request_file import RequestFile
from neuron_atlas.tasks.models.servers import FixedServers, complete_url
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.cluster.progress import Advance, print_line
from neuron_atlas.workflows.models.account import RemoteAccount, open_account
from neuron_atlas.workflows.models.spending import show_spending, spending_note
from neuron_atlas.workflows.run.errors import ConfigError

JOURNAL = "journal.sqlite"
LogLive = Callable[[Mapping[str, float], int], None]
"""Log metrics by name, at a step."""
_NO_KEY = "none"
_TO_SETTLE_S = 10.0
_LINE_EVERY_S = 60.0
_CHUNK = 8192
"""Neurons whose requests are on disk at a time: their images are large."""


@dataclass(frozen=True)
class ModelUse:
    """A stage's use of a model.

    stage: its name; its budget pays for the requests. title: prefix of the names of the metrics on
    spending. budget_usd: the most that the stage may spend in the output folder, over all runs;
    None for no limit. base_urls: addresses for live calls, instead of the client's.
    """

    stage: str
    title: str
    client: ClientSettings
    prices: Mapping[str, Price]
    budget_usd: float | None = None
    mode: Literal["live", "batch"] = "live"
    base_urls: Sequence[str] = ()


@dataclass(frozen=True)
class OpenCalls:
    """The driver's side of the calls of one stage to one model. shown: the notices that were
    printed."""

    use: ModelUse
    account: RemoteAccount
    shown: set[str] = field(default_factory=set)

    @property
    def ending_s(self) -> float:
        """Seconds that a stopped task needs to store the answers under way."""
        return self.use.client.timeout_s + _TO_SETTLE_S

    def live_calls(self) -> CallOptions:
        """Return the Calls of work that sends requests.

        From now on, the client's limits apply to all programs that use the provider's account.
        """
        before = self.account.share_limits()
        client = self.use.client
        if before != client.limits:
            limits, previous = _format_limits(client.limits), _format_limits(before)
            print_line(f"limits     {client.limits_account}: {limits}; before, {previous}")
        calls = CallOptions(self.account, group=self.use.stage)
        if not self.use.base_urls:
            return calls
        key = os.environ.get(client.api_key_env, "").strip() or _NO_KEY
        return replace(calls, servers=FixedServers(map(complete_url, self.use.base_urls), key))

    def batch_calls(self, path: Path) -> CallOptions:
        """Return the Calls of work whose requests are written to a file, for a batch."""
        price = price_of(self.use.prices, self.use.client.model)
        share = 1.0 if price is None else price.batch
        return CallOptions(self.account, RequestFile(path, price_share=share), self.use.stage)

    def dry_run_calls(self, path: Path) -> CallOptions:
        """Return the Calls of work whose requests are only counted, in a file without bodies."""
        return CallOptions(self.account, RequestFile(path, with_bodies=False), self.use.stage)

    def show_spending(self, advance: Advance, log_live: LogLive) -> AbstractContextManager[None]:
        """Show and log the spending while open."""
        return show_spending(advance, self.tally, log_live, self.use.title)

    def tally(self) -> Tally:
        """Return the totals so far, and print the account's new notices."""
        latest = self.account.tally()
        for notice in latest.notices:
            if notice not in self.shown:
                self.shown.add(notice)
                print_line(f"{self.use.stage:<10} {notice}")
        return latest

    def work_by_batch(self, spools: Path, work: Callable[..., None]) -> None:
        """Collect unanswered requests, submit them and wait for answers, until every item is done.

        spools: a temporary folder for the requests. work: works on all unfinished items. An item
        with all answers finishes; any other item writes its unanswered requests. It is called with
        `calls` (a function of the item), `chunk_size` and `after_chunk`.
        """
        submitted = True

        def submit() -> None:
            nonlocal submitted
            if collected := sorted(spools.glob("*.jsonl")):
                submitted = True
                self.account.submit(collected)
            remove_folder(spools)

        while submitted:
            submitted = False
            self._wait_for_batches()
            remove_folder(spools)  # A run that was killed while collecting leaves files.
            work(
                calls=lambda item: self.batch_calls(spools / f"{item.key}.jsonl"),
                chunk_size=_CHUNK,
                after_chunk=submit,
            )

    def _wait_for_batches(self) -> None:
        """Fetch answers until no batch is open; print a line every minute."""
        next_line = 0.0
        while n_open := self.account.fetch():
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + _LINE_EVERY_S
                spent = spending_note(self.tally())
                print_line(
                    f"{self.use.stage:<10} {n_open:,} requests in {self.account.n_batches():,} "
                    f"batches, {spent}; the run can be stopped here, and the same command goes on "
                    "waiting"
                )
            time.sleep(self.use.client.batch.poll_s)


@contextmanager
def open_calls(use: ModelUse, local: Path) -> Iterator[OpenCalls]:
    """Open the account of a model for one stage. local: the folder of its file.

    Raises ConfigError if batches of an earlier run are open and the mode is not batch: their
    requests would be paid twice.
    """
    path = local / JOURNAL
    with open_account(path, use.stage, use.budget_usd, use.client, use.prices) as account:
        if use.mode != "batch" and (n_batches := account.n_batches()):
            raise ConfigError(
                f"{use.stage}.mode: {n_batches:,} batches of an earlier run have not been "
                f"fetched; run with {use.stage}.mode=batch until they are, or their requests are "
                "paid twice"
            )
        calls = OpenCalls(use, account)
        yield calls
        if lost := calls.tally().lost:
            print_line(
                f"{use.stage:<10} {lost:,} calls have no result: they may have been billed, and "
                "count as spent at the most that they can have cost"
            )


def _format_limits(limits: LimitSettings) -> str:
    parts = [
        f"{value:,} {name}"
        for value, name in (
            (limits.requests_per_minute, "requests a minute"),
            (limits.tokens_per_minute, "tokens a minute"),
            (limits.concurrency, "at once"),
        )
        if value is not None
    ]
    return ", ".join(parts)
