"""A reservation of the budget."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """A call that may be under way, and its reservation (USD). factor: see `Corrections`."""

    call: int
    request_hash: str
    usd: float
    owner: str
    permit: int
    factor: float
