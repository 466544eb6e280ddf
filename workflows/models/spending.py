"""What calls cost while they run: on the progress bar, and in MLflow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from neuron_atlas.tasks.models.journal import Tally
from neuron_atlas.workflows.cluster.progress import Advance
from neuron_atlas.workflows.tracking.metrics import spending_metrics

_LOOK_EVERY_S = 2.0
_LOG_EVERY_S = 10.0


@contextmanager
def shown_spending(
    advance: Advance,
    tally: Callable[[], Tally],
    log_live: Callable[[Mapping[str, float], int], None],
    stage: str,
) -> Iterator[None]:
    """Look at the tally every few seconds for as long as it is open, and once more at the end,
    however it ends.

    stage: what the metrics are named after.
    """
    ended = threading.Event()
    begun = time.monotonic()

    def look() -> Tally:
        latest = tally()
        advance.note(spending_note(latest))
        return latest

    def log(latest: Tally) -> None:
        log_live(spending_metrics(stage, latest), round(time.monotonic() - begun))

    def keep_looking() -> None:
        logged = begun
        while not ended.wait(_LOOK_EVERY_S):
            latest = look()
            if time.monotonic() - logged >= _LOG_EVERY_S:
                logged = time.monotonic()
                log(latest)

    watcher = threading.Thread(target=keep_looking, name="spending", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        with suppress(Exception):  # Where the journal died, that is told by what needs it.
            log(look())


def spending_note(tally: Tally) -> str:
    """A few words for the bar: dollars of the budget, calls, and what is slow or lost."""
    words = [f"${tally.spent_usd:,.2f}"]
    if tally.budget_usd is not None:
        words[0] += f" of ${tally.budget_usd:,.2f}"
    words.append(f"{tally.requests:,} calls")
    if tally.p50_s is not None:
        words.append(f"{tally.p50_s:.1f} s each")
    if tally.lost:
        words.append(f"{tally.lost:,} without a result")
    return ", ".join(words)
