"""What a stage that asks a model opens: its journal, the account's limits, and batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.outbox import outbox_folder
from neuron_atlas.tasks.models.prices import Price, price_of
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.tasks.models.spool import Spool
from neuron_atlas.workflows.cluster.progress import Advance, say
from neuron_atlas.workflows.models.journal import RemoteJournal, open_journal
from neuron_atlas.workflows.models.limits import RemoteLimits, forget_limits
from neuron_atlas.workflows.models.spending import shown_spending, spending_note
from neuron_atlas.workflows.run.errors import WrongCall

JOURNAL = "journal.sqlite"
LogLive = Callable[[Mapping[str, float], int], None]
"""Logs metrics by name, at a step."""
_TO_SETTLE_S = 10.0


@dataclass(frozen=True)
class ModelUse:
    """A stage's use of a model.

    stage: its name; requests are counted against its budget. title: what is spent is logged under
    it. budget_usd: the most that the stage may spend in the output folder, None for no limit.
    """

    stage: str
    title: str
    client: ClientSettings
    prices: Mapping[str, Price]
    budget_usd: float | None = None
    mode: Literal["live", "batch"] = "live"


@dataclass(frozen=True)
class OpenCalls:
    """The way to the model of one stage, for its driver."""

    use: ModelUse
    journal: RemoteJournal
    limits: RemoteLimits
    outbox: Path

    @property
    def ending_s(self) -> float:
        """How long tasks that are stopped need to keep the answers that are under way (s)."""
        return self.use.client.timeout_s + _TO_SETTLE_S

    def live(self) -> Calls:
        """For work that calls: its limits hold from now on for all who use the account."""
        before = self.limits.agree()
        client = self.use.client
        if before != client.limits:
            say(f"limits     {client.account}: {_shown(client.limits)}; before, {_shown(before)}")
        return Calls(self.journal, self.limits, outbox=self.outbox, group=self.use.stage)

    def collecting(self, path: Path) -> Calls:
        """For work whose requests go into a file, to be handed in by batch."""
        price = price_of(self.use.prices, self.use.client.model)
        spool = Spool(path, share=1.0 if price is None else price.batch)
        return Calls(self.journal, None, spool, group=self.use.stage)

    def rehearsing(self, path: Path) -> Calls:
        """For work whose requests are written down to be counted; nothing is sent."""
        return Calls(self.journal, None, Spool(path, keep_bodies=False), group=self.use.stage)

    def shown(self, advance: Advance, log_live: LogLive) -> AbstractContextManager[None]:
        """Show and log what is spent for as long as it is open."""
        return shown_spending(advance, self.journal.tally_now, log_live, self.use.title)

    def hand_in(self, collected: Sequence[Path]) -> None:
        """Hand in collected requests by batch. Raises Unusable."""
        self.journal.hand_in(self.use.client, self.use.prices, collected)

    def wait_for_batches(self) -> None:
        """Fetch what batches answer until none is left, with a line now and then."""
        client = self.use.client
        begun = said = time.monotonic()
        while left := self.journal.look(client, self.use.prices):
            if time.monotonic() - said >= 60 or said == begun:
                said = time.monotonic()
                say(
                    f"{self.use.stage:<10} {left:,} requests in "
                    f"{self.journal.batches(client):,} batches, "
                    f"{spending_note(self.journal.tally_now())}; the run can be stopped here, and "
                    "the same command goes on waiting"
                )
            time.sleep(client.batch.poll_s)


@contextmanager
def open_calls(use: ModelUse, local: Path) -> Iterator[OpenCalls]:
    """Open the account of a model for one stage. local: the folder of the journal.

    Raises WrongCall where batches of an earlier run wait for their answers, and it is not batch
    mode that would fetch them: their requests would be paid for twice.
    """
    client = use.client
    forget_limits()
    limits = RemoteLimits(client.account, client.limits)
    path = local / JOURNAL
    with open_journal(path, use.stage, use.budget_usd) as journal:
        if use.mode != "batch" and (open_batches := journal.batches(client)):
            raise WrongCall(
                f"{use.stage}.mode: {open_batches:,} batches of an earlier run have not been "
                f"fetched; run with {use.stage}.mode=batch until they are, or their requests are "
                "paid twice"
            )
        yield OpenCalls(use, journal, limits, outbox_folder(path, use.stage))
        lost = journal.tally_now().lost
        if lost:
            say(
                f"{use.stage:<10} {lost:,} calls have no result: they may have been billed, and "
                "count as spent at the most that they can have cost"
            )


def _shown(limits: LimitSettings) -> str:
    told = [
        f"{value:,} {name}"
        for value, name in (
            (limits.requests_per_minute, "requests a minute"),
            (limits.tokens_per_minute, "tokens a minute"),
            (limits.concurrency, "at once"),
        )
        if value is not None
    ]
    return ", ".join(told)
