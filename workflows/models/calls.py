"""What the driver of a stage that calls a model opens: the account, and batches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from neuron_atlas.tasks.artifacts.location import remove_folder
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.prices import Price, price_of
from neuron_atlas.tasks.models.request_file import RequestFile
from neuron_atlas.tasks.models.servers import FixedServers, whole_url
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.workflows.cluster.progress import Advance, say
from neuron_atlas.workflows.models.account import RemoteAccount, open_account
from neuron_atlas.workflows.models.spending import show_spending, spending_note
from neuron_atlas.workflows.run.errors import WrongCall

JOURNAL = "journal.sqlite"
LogLive = Callable[[Mapping[str, float], int], None]
"""Logs metrics by name, at a step."""
_NO_KEY = "none"
_TO_SETTLE_S = 10.0
_LINE_EVERY_S = 60.0
_CHUNK = 8192
"""Neurons whose requests lie on the disk at the same time: their pictures are large."""


@dataclass(frozen=True)
class ModelUse:
    """A stage's use of a model.

    stage: its name; requests are counted against its budget. title: what is spent is logged under
    it. budget_usd: the most that the stage may spend in the output folder, None for no limit.
    base_urls: where live calls go, instead of the client's address.
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
    """The driver's side of the calls of one stage to one model."""

    use: ModelUse
    account: RemoteAccount

    @property
    def ending_s(self) -> float:
        """Seconds that a stopped task needs to store the answers under way."""
        return self.use.client.timeout_s + _TO_SETTLE_S

    def live(self) -> Calls:
        """For work that calls: its limits are in force from now on for all programs that use the
        account."""
        before = self.account.share_limits()
        client = self.use.client
        if before != client.limits:
            say(f"limits     {client.account}: {_shown(client.limits)}; before, {_shown(before)}")
        calls = Calls(self.account, group=self.use.stage)
        if not self.use.base_urls:
            return calls
        key = os.environ.get(client.api_key_env, "").strip() or _NO_KEY
        return replace(calls, servers=FixedServers(map(whole_url, self.use.base_urls), key))

    def collecting(self, path: Path) -> Calls:
        """For work whose requests are written to a file, to be handed in by batch."""
        price = price_of(self.use.prices, self.use.client.model)
        share = 1.0 if price is None else price.batch
        return Calls(self.account, RequestFile(path, price_share=share), self.use.stage)

    def rehearsing(self, path: Path) -> Calls:
        """For work whose requests are only counted, in a file without bodies."""
        return Calls(self.account, RequestFile(path, with_bodies=False), self.use.stage)

    def shown(self, advance: Advance, log_live: LogLive) -> AbstractContextManager[None]:
        """Show and log what is spent for as long as it is open."""
        return show_spending(advance, self.account.tally, log_live, self.use.title)

    def work_by_batch(self, spools: Path, work: Callable[..., None]) -> None:
        """Collect unanswered requests, hand them in and wait for answers, until every item is done.

        spools: a folder for the requests, removed again. work: works on all unfinished items: each
        collects the requests it has no answer to, or, where it has all answers, finishes. It is
        called with `calls` (given an item), `chunk_size` and `after_chunk`.
        """
        handed_in = True

        def hand_in() -> None:
            nonlocal handed_in
            if collected := sorted(spools.glob("*.jsonl")):
                handed_in = True
                self.account.hand_in(collected)
            remove_folder(spools)

        while handed_in:
            handed_in = False
            self._wait_for_batches()
            remove_folder(spools)  # Of a run that was killed while it collected.
            work(
                calls=lambda item: self.collecting(spools / f"{item.key}.jsonl"),
                chunk_size=_CHUNK,
                after_chunk=hand_in,
            )

    def _wait_for_batches(self) -> None:
        """Fetch what batches answer until none is open, with a line now and then."""
        next_line = 0.0
        while left := self.account.fetch():
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + _LINE_EVERY_S
                spent = spending_note(self.account.tally())
                say(
                    f"{self.use.stage:<10} {left:,} requests in {self.account.n_batches():,} "
                    f"batches, {spent}; the run can be stopped here, and the same command goes on "
                    "waiting"
                )
            time.sleep(self.use.client.batch.poll_s)


@contextmanager
def open_calls(use: ModelUse, local: Path) -> Iterator[OpenCalls]:
    """Open the account of a model for one stage. local: the folder of its file.

    Raises WrongCall where batches of an earlier run are open and the mode is not batch: their
    requests would be paid for twice.
    """
    path = local / JOURNAL
    with open_account(path, use.stage, use.budget_usd, use.client, use.prices) as account:
        if use.mode != "batch" and (n_batches := account.n_batches()):
            raise WrongCall(
                f"{use.stage}.mode: {n_batches:,} batches of an earlier run have not been "
                f"fetched; run with {use.stage}.mode=batch until they are, or their requests are "
                "paid twice"
            )
        yield OpenCalls(use, account)
        if lost := account.tally().lost:
            say(
                f"{use.stage:<10} {lost:,} calls have no result: they may have been billed, and "
                "count as spent at the most that they can have cost"
            )


def _shown(limits: LimitSettings) -> str:
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
