"""What a stage that asks a model opens: its journal, the account's limits, and batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.outbox import outbox_folder
from neuron_atlas.tasks.models.prices import Price, price_of
from neuron_atlas.tasks.models.settings import ClientSettings, LimitSettings
from neuron_atlas.tasks.models.spool import Spool
from neuron_atlas.workflows.cluster.progress import Advance, say
from neuron_atlas.workflows.models.journal import RemoteJournal, open_journal
from neuron_atlas.workflows.models.limits import RemoteLimits, forget_limits
from neuron_atlas.workflows.models.servers import ServerPool
from neuron_atlas.workflows.models.spending import shown_spending, spending_note
from neuron_atlas.workflows.run.errors import WrongCall
from neuron_atlas.workflows.run.stage import Context

JOURNAL = "journal.sqlite"
_TO_SETTLE_S = 10.0


@dataclass(frozen=True)
class OpenCalls:
    """The way to the model of one stage, for its driver."""

    stage: str
    title: str
    """What is spent is logged under it: the stage, and of several explainers which."""
    client: ClientSettings
    prices: Mapping[str, Price]
    journal: RemoteJournal
    limits: RemoteLimits
    outbox: Path
    servers: ServerPool | None = None
    """Where the model is served; None is the address in the client's settings."""

    @property
    def ending_s(self) -> float:
        """How long tasks that are stopped need to keep the answers that are under way (s)."""
        return self.client.timeout_s + _TO_SETTLE_S

    def live(self) -> Calls:
        """For tasks that call: their limits hold from now on for all who use the account. Servers
        of the model's own are started first."""
        before = self.limits.agree()
        if before != self.client.limits:
            now = self.client
            say(f"limits     {now.account}: {_shown(now.limits)}; before, {_shown(before)}")
        servers = None if self.servers is None else self.servers.opened()
        return Calls(
            self.journal, self.limits, outbox=self.outbox, group=self.stage, servers=servers
        )

    def collecting(self, path: Path) -> Calls:
        """For tasks whose requests go into a file, to be handed in by batch."""
        price = price_of(self.prices, self.client.model)
        spool = Spool(path, share=1.0 if price is None else price.batch)
        return Calls(self.journal, None, spool, group=self.stage)

    def accompany(self, context: Context, advance: Advance) -> AbstractContextManager[None]:
        """Show and log what is spent for as long as it is open."""
        return shown_spending(advance, self.journal.tally_now, context.log_live, self.title)

    def wait_for_batches(self, context: Context) -> None:
        """Fetch what batches answer until none is left, with a line now and then."""
        begun = said = time.monotonic()
        while left := self.journal.look(self.client, self.prices):
            if time.monotonic() - said >= 60 or said == begun:
                said = time.monotonic()
                say(
                    f"{self.stage:<10} {left:,} requests in "
                    f"{self.journal.batches(self.client):,} batches, "
                    f"{spending_note(self.journal.tally_now())}; it may be stopped here, and the "
                    "same call goes on waiting"
                )
            time.sleep(self.client.batch.poll_s)


@contextmanager
def open_calls(
    asker: Any,
    context: Context,
    stage: str,
    budget_usd: float | None,
    mode: Literal["live", "batch"] = "live",
) -> Iterator[OpenCalls | None]:
    """For an explainer or simulator that has a client, else None.

    Raises WrongCall where batches of an earlier run wait for their answers, and it is not batch
    mode that would fetch them: their requests would be paid for twice.
    """
    client: ClientSettings | None = getattr(asker, "client", None)
    if client is None:
        yield None
        return
    forget_limits()
    limits = RemoteLimits(client.account, client.limits)
    path = context.store.local / JOURNAL
    with open_journal(path, stage, budget_usd) as journal:
        if mode != "batch" and (open_batches := journal.batches(client)):
            raise WrongCall(
                f"{stage}.mode: {open_batches:,} batches of an earlier run have not been fetched; "
                f"run with {stage}.mode=batch until they are, or their requests are paid twice"
            )
        title = f"{stage}/{context.apart}" if context.apart else stage
        outbox = outbox_folder(path, stage)
        servers = context.servers if stage == "simulate" else None
        yield OpenCalls(stage, title, client, asker.prices, journal, limits, outbox, servers)
        lost = journal.tally_now().lost
        if lost:
            say(
                f"{stage:<10} {lost:,} calls have no result: they may have been billed, and count "
                "as spent at the most that they can have cost"
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
