"""Cost of calls, by the prices in the settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.failures import ProviderError
from neuron_atlas.tasks.settings import Share


@dataclass(frozen=True)
class Price:
    """A model's list price in USD per million tokens, as published on `date` (YYYY-MM-DD).

    batch: the share of it that a batch call costs. Discounts for cached prompts are ignored, so a
    cost may be too high but not too low.
    """

    input: Annotated[float, Ge(0)]
    output: Annotated[float, Ge(0)]
    date: str
    batch: Share = 0.5


ANY_MODEL = "any"
"""Key of the default price, for models without a price of their own."""


def price_of(prices: Mapping[str, Price], model: str) -> Price | None:
    """Return the price of a model, else the default price, else None."""
    return prices.get(model) or prices.get(ANY_MODEL)


def cost(prices: Mapping[str, Price], model: str, tokens_in: int, tokens_out: int) -> float | None:
    """Return the price of one or more calls in USD, or None if `model` has no price."""
    price = price_of(prices, model)
    if price is None:
        return None
    return (tokens_in * price.input + tokens_out * price.output) / 1_000_000


def total_cost(prices: Mapping[str, Price], model: str, answers: Iterable[Answer]) -> float | None:
    """Return the total cost of answers in USD. An answer of unknown cost counts at the current
    price; without one, the total is None."""
    total = 0.0
    for answer in answers:
        usd = answer.usd
        if usd is None:
            usd = cost(prices, model, answer.tokens_in, answer.tokens_out)
        if usd is None:
            return None
        total += usd
    return total


def check_price(prices: Mapping[str, Price], model: str, where: str) -> None:
    """Raise ProviderError if `model` has no price: the cost of a run would be unknown.

    where: the setting with the prices, for the message.
    """
    if price_of(prices, model) is None:
        known = ", ".join(sorted(prices)) or "none"
        # On the command line, these characters would end a key.
        key = re.sub(r"([\\(){}\[\]:=, \t])", r"\\\1", model)
        raise ProviderError(
            f"{where}: the model {model!r} has no price (there are: {known}); give its USD for a "
            f"million tokens and the date of the price, such as '+{where}={{{key}: "
            """{input: 2.5, output: 10, date: "2026-04-05"}}', with 0 for a server of your own"""
        )
