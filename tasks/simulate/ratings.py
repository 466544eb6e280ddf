"""Reads the ratings that a model gave, as the integers that it wrote or as expected values."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuron_atlas.tasks.models.dialogue import Malformed
from neuron_atlas.tasks.models.json_answer import Found, find_objects
from neuron_atlas.tasks.models.logprobs import Odds
from neuron_atlas.tasks.simulate.scale import HIGHEST
from neuron_atlas.tasks.simulate.sheet import SAMPLE, Sheet

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_STRING_OR_NUMBER = re.compile(rf'"((?:[^"\\]|\\.)*)"(\s*:)?|({_NUMBER})', re.DOTALL)
_WHOLE = re.compile(r"\d+")
Span = tuple[int, int]


@dataclass(frozen=True)
class Ratings:
    """values: one for each number that the sheet asks for, in its order. spans: where each stands
    in what was said; None where it had to be repaired to be read."""

    values: tuple[float, ...]
    spans: tuple[Span, ...] | None


def read_ratings(said: str, sheet: Sheet) -> Ratings:
    """Read an answer to a sheet. Raises Malformed where a number is missing, is too many, or is
    none of the sheet's scale."""
    names = [name for name, _ in sheet.fields]
    found = find_objects(said, pairs=list)
    chosen = next((one for one in found if names[0] in dict(one.value)), None) or next(
        iter(found), None
    )
    if chosen is None:
        raise Malformed("it holds no JSON object")
    given = dict(chosen.value)
    if len(given) < len(chosen.value):
        raise Malformed("a field stands in it twice")
    values: list[float] = []
    for name, count in sheet.fields:
        values += _numbers(name, count, given, sheet.top)
    return Ratings(tuple(values), _spans(said, chosen, sheet))


def expected_values(
    said: str, spans: Sequence[Span], odds: Sequence[Odds], top: int = HIGHEST
) -> list[float] | None:
    """The expected value of every number, or None where the odds of one are not known.

    odds: in the order of the answer. See `expected_value`.
    """
    starts = [one.start for one in odds]
    values = []
    for (start, stop), first in zip(spans, first_odds(spans, odds), strict=True):
        value = None
        if first is not None and _WHOLE.fullmatch(said[start:stop]):
            second = _covering(odds, starts, start + 1)
            value = expected_value(first, None if second is first else second, top)
        if value is None:
            return None
        values.append(value)
    return values


def expected_value(first: Odds, second: Odds | None = None, top: int = HIGHEST) -> float | None:
    """The expected value of a number from 0 to `top`, over the numbers that could have been
    written; None where no number has any probability.

    first, second: the odds at the number's first token, and at the token after it if they are
    known. As Bills et al. (2023, "Language models can explain neurons in language models") do, the
    probabilities of the tokens that are numbers are scaled to sum to 1. A scale up to 10 is for
    tokenizers of which "10" is a token (`tasks.simulate.scale`), and "1" is then 1. Where a model
    writes it as "1" and "0" all the same, what has the probability of "1" is parted by that of "0"
    after it.
    """
    chances = [0.0] * (top + 1)
    for text, logprob in first.options:
        number = text.strip()
        if _WHOLE.fullmatch(number) and int(number) <= top:
            chances[int(number)] += math.exp(logprob)
    if top == HIGHEST and first.token.strip() == "1" and second is not None:
        goes_on = sum(math.exp(logprob) for text, logprob in second.options if text == "0")
        ten = chances[1] * min(goes_on, 1.0)
        chances[1] -= ten
        chances[10] += ten
    total = sum(chances)
    if total <= 0:
        return None
    return sum(number * chance for number, chance in enumerate(chances)) / total


def first_odds(spans: Sequence[Span], odds: Sequence[Odds]) -> list[Odds | None]:
    """Those at the first token of every number, None where they are not known."""
    starts = [one.start for one in odds]
    return [_covering(odds, starts, start) for start, _ in spans]


def share_of_numbers(place: Odds) -> float:
    """The probability that what stands at a place is a number."""
    return sum(
        math.exp(logprob) for text, logprob in place.options if _WHOLE.fullmatch(text.strip())
    )


def find_numbers(said: str) -> list[Span]:
    """Where whole numbers stand in a text."""
    return [found.span() for found in _WHOLE.finditer(said)]


def _numbers(name: str, count: int, given: dict[str, Any], top: int) -> list[float]:
    if name not in given:
        raise Malformed(f'the field "{name}" is missing')
    listed = given[name]
    if name == SAMPLE and not isinstance(listed, list):
        listed = [listed]
    if not isinstance(listed, list):
        raise Malformed(f'the field "{name}" is no list of numbers')
    if len(listed) != count:
        raise Malformed(f'the field "{name}" has {len(listed)} numbers instead of {count}')
    for value in listed:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= top:
            raise Malformed(f'the field "{name}" holds something else than numbers from 0 to {top}')
    return [float(value) for value in listed]


def _spans(said: str, chosen: Found, sheet: Sheet) -> tuple[Span, ...] | None:
    if chosen.start is None or chosen.end is None:
        return None
    by_field: dict[str, list[Span]] = {}
    name = ""
    for part in _STRING_OR_NUMBER.finditer(said, chosen.start, chosen.end):
        if part[3] is not None:
            by_field.setdefault(name, []).append(part.span(3))
        elif part[2] is not None:
            name = part[1]
    spans = [span for name, _ in sheet.fields for span in by_field.get(name, [])]
    return tuple(spans) if len(spans) == sheet.numbers else None


def _covering(odds: Sequence[Odds], starts: Sequence[int], place: int) -> Odds | None:
    """The odds of the token that a character belongs to."""
    index = bisect_right(starts, place) - 1
    if index < 0 or place >= odds[index].start + len(odds[index].token):
        return None
    return odds[index]
