"""What calls cost, by prices that are given as settings with their date."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from neuron_atlas.tasks.models.answer import Answer
from neuron_atlas.tasks.models.failures import Unusable
from neuron_atlas.tasks.settings import Share


@dataclass(frozen=True)
class Price:
    """A model's list price in USD per million tokens, as published on `date` (YYYY-MM-DD).

    batch: the share of it that a call by batch costs. Discounts for cached prompts are not
    counted, so a cost is at most too high.
    """

    input: Annotated[float, Ge(0)]
    output: Annotated[float, Ge(0)]
    date: str
    batch: Share = 0.5


ANY_MODEL = "any"
"""In the place of a model's name: the price of those that are not named."""


def price_of(prices: Mapping[str, Price], model: str) -> Price | None:
    """The price of a model, or None."""
    return prices.get(model) or prices.get(ANY_MODEL)


def cost(prices: Mapping[str, Price], model: str, tokens_in: int, tokens_out: int) -> float | None:
    """The price of one or more calls in USD, or None where `model` has no price."""
    price = price_of(prices, model)
    if price is None:
        return None
    return (tokens_in * price.input + tokens_out * price.output) / 1_000_000


def total_cost(prices: Mapping[str, Price], model: str, answers: Iterable[Answer]) -> float | None:
    """What answers cost, each at what was paid for it, or at today's price where that is unknown;
    None without either."""
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
    """Raise Unusable where `model` has no price: nobody could say what a run will cost.

    where: the setting that holds the prices.
    """
    if price_of(prices, model) is None:
        known = ", ".join(sorted(prices)) or "none"
        # Where a setting is given on the command line, these end a key.
        key = re.sub(r"([\\(){}\[\]:=, \t])", r"\\\1", model)
        raise Unusable(
            f"{where}: the model {model!r} has no price (there are: {known}); give its USD for a "
            f"million tokens and the date of the price, such as '+{where}={{{key}: "
            """{input: 2.5, output: 10, date: "2026-04-05"}}', with 0 for a server of your own"""
        )
