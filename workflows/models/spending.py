"""Show the cost of running calls on the progress bar and in MLflow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from neuron_atlas.tasks.models.account.tally import Tally
from neuron_atlas.workflows.cluster.progress import Advance
from neuron_atlas.workflows.cluster.signals import cluster_is_gone
from neuron_atlas.workflows.tracking.metrics import spending_metrics

_SHOW_EVERY_S = 2.0
_LOG_EVERY_S = 10.0


@contextmanager
def show_spending(
    advance: Advance,
    tally: Callable[[], Tally],
    log_live: Callable[[Mapping[str, float], int], None],
    title: str,
) -> Iterator[None]:
    """Show the tally every 2 s and log it every 10 s while open, and log it once at the end.

    title: prefix of the metrics' names.
    """
    ended = threading.Event()
    begun = time.monotonic()

    def show() -> Tally:
        latest = tally()
        advance.note(spending_note(latest))
        return latest

    def log(latest: Tally) -> None:
        log_live(spending_metrics(title, latest), round(time.monotonic() - begun))

    def show_until_ended() -> None:
        logged_at = begun
        while not ended.wait(_SHOW_EVERY_S):
            latest = show()
            if time.monotonic() - logged_at >= _LOG_EVERY_S:
                logged_at = time.monotonic()
                log(latest)

    thread = threading.Thread(target=show_until_ended, name="spending", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        if not cluster_is_gone():
            thread.join()
            with suppress(Exception):  # A dead account is reported by its callers.
                log(show())


def spending_note(tally: Tally) -> str:
    """Return a note for the bar: dollars spent, calls, median latency, calls without a result."""
    words = [f"${tally.spent_usd:,.2f}"]
    if tally.budget_usd is not None:
        words[0] += f" of ${tally.budget_usd:,.2f}"
    words.append(f"{tally.requests:,} calls")
    if (latency_s := tally.latency_s(0.5)) is not None:
        words.append(f"{latency_s:.1f} s each")
    if tally.lost:
        words.append(f"{tally.lost:,} without a result")
    return ", ".join(words)
