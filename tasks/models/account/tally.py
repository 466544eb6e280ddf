"""Totals of calls."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from neuron_atlas.tasks.models.account.messages import CallResult


@dataclass
class Tally:
    """Totals of the calls of one purpose (explain, simulate).

    Of all runs: spent_usd, including the most that calls without a result can have cost, and lost,
    the number of those calls. held_usd: reserved for calls under way. Of this run: all other
    fields. outcomes: calls by how they ended. latencies_s: of the latest answered calls. notices:
    lines for the user, oldest first.
    """

    budget_usd: float | None = None
    spent_usd: float = 0.0
    held_usd: float = 0.0
    lost: int = 0
    requests: int = 0
    answered: int = 0
    replayed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    run_usd: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=20_000))
    notices: list[str] = field(default_factory=list)

    def add(self, result: CallResult) -> None:
        """Count a call of this run that ended."""
        self.outcomes[result.status] += 1
        if result.answer is not None:
            self.answered += 1
            self.tokens_in += result.tokens_in
            self.tokens_out += result.tokens_out
            self.run_usd += result.usd or 0.0
            self.latencies_s.append(result.seconds)

    def latency_s(self, quantile: float) -> float | None:
        """Return a quantile of the latency, None without answers."""
        if not self.latencies_s:
            return None
        return float(np.quantile(self.latencies_s, quantile, method="higher"))
