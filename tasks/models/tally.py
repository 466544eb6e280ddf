"""What the calls of one run came to, counted while they end."""

from __future__ import annotations

from collections import Counter

from neuron_atlas.tasks.models.journal import Spent, Tally

_LATENCIES_KEPT = 20_000


class RunTally:
    """Counts of this run."""

    def __init__(self) -> None:
        self.requests = self.answered = self.replayed = self.tokens_in = self.tokens_out = 0
        self.usd = 0.0
        self.outcomes: Counter[str] = Counter()
        self._seconds: list[float] = []

    def add(self, spent: Spent) -> None:
        """Count a call that was answered."""
        self.answered += 1
        self.tokens_in += spent.tokens_in
        self.tokens_out += spent.tokens_out
        self.usd += spent.usd or 0.0
        self.outcomes[spent.status] += 1
        # The latest ones, so that a run of days shows how it is going now.
        self._seconds.append(spent.seconds)
        if len(self._seconds) > 2 * _LATENCIES_KEPT:
            del self._seconds[:_LATENCIES_KEPT]

    def tally(
        self, budget_usd: float | None, spent_usd: float, held_usd: float, lost: int
    ) -> Tally:
        """These counts, beside those of all runs."""
        p50_s, p90_s, p99_s = self._percentiles(0.5, 0.9, 0.99)
        return Tally(
            budget_usd=budget_usd,
            spent_usd=spent_usd,
            held_usd=held_usd,
            lost=lost,
            requests=self.requests,
            answered=self.answered,
            replayed=self.replayed,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            run_usd=self.usd,
            outcomes=dict(self.outcomes),
            p50_s=p50_s,
            p90_s=p90_s,
            p99_s=p99_s,
        )

    def _percentiles(self, *shares: float) -> list[float | None]:
        ordered = sorted(self._seconds[-_LATENCIES_KEPT:])
        if not ordered:
            return [None] * len(shares)
        return [ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in shares]
