"""What calls cost, by prices that are given as settings with their date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """A model's list price in USD per million tokens, as published on `date` (YYYY-MM-DD).

    Discounts for cached prompts are not counted, so a cost is at most too high.
    """

    input: float
    output: float
    date: str

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: must be a price in USD, from 0")


def cost(prices: Mapping[str, Price], model: str, tokens_in: int, tokens_out: int) -> float | None:
    """The price of one or more calls in USD, or None where `model` has no price."""
    price = prices.get(model)
    if price is None:
        return None
    return (tokens_in * price.input + tokens_out * price.output) / 1_000_000
