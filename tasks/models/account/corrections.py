"""Correct the most that a call can cost by what calls did cost.

A provider may count more tokens than expected, such as for the images of a model whose rule is
unknown. The budget would then be exceeded by every call. So the first such call raises the
reservations of all later ones.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from neuron_atlas.tasks.models.account.messages import LeaseRequest

_TOLERANCE = 1.001
_MARGIN = 1.1
"""The next call may exceed its reservation a little more than the last one did."""


class Corrections:
    """Factors by which calls of one purpose exceed their computed worst case, by model."""

    def __init__(self, database: sqlite3.Connection, purpose: str) -> None:
        self._database, self._purpose = database, purpose
        rows = database.execute(
            "SELECT model, factor FROM corrections WHERE purpose = ?", (purpose,)
        )
        self._factors: dict[str, float] = dict(rows.fetchall())

    def apply(self, want: LeaseRequest) -> LeaseRequest:
        """Return a request with its corrected worst case."""
        return replace(want, usd=want.usd * self.factor(want.model))

    def factor(self, model: str) -> float:
        """Return the factor by which reservations for a model are raised now."""
        return self._factors.get(model, 1.0)

    def learn(self, model: str, usd: float, reserved_usd: float, factor_then: float) -> str:
        """Learn from the cost of a call and its reservation (USD). Call within a transaction.

        factor_then: the factor of its reservation. Returns a notice for the user if the worst case
        was too low, else "".
        """
        if reserved_usd <= 0 or usd <= reserved_usd * _TOLERANCE:
            return ""
        factor = factor_then * usd / reserved_usd * _MARGIN
        if factor <= self.factor(model):
            return ""  # The call was reserved before the last correction.
        self._factors[model] = factor
        self._database.execute(
            "INSERT OR REPLACE INTO corrections (purpose, model, factor) VALUES (?, ?, ?)",
            (self._purpose, model, factor),
        )
        return (
            f"a call to {model} cost ${usd:.4f}, and ${reserved_usd:.4f} was reserved for it: the "
            "provider counts more tokens than expected (image_tokens, max_tokens). From now on "
            f"{factor:.2g} times as much is reserved for each call"
        )
