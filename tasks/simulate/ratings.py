"""Parse a model's ratings, as the integers that it wrote or as expected values."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuron_atlas.tasks.models.dialogue import MalformedAnswerError
from neuron_atlas.tasks.models.json_answer import JsonObject, choose_last, find_objects
from neuron_atlas.tasks.models.logprobs import TokenLogprobs
from neuron_atlas.tasks.models.reasoning import answer_part
from neuron_atlas.tasks.simulate.scale import MAX_RATING
from neuron_atlas.tasks.simulate.sheet import SAMPLE, RatingSheet

_NUMBER = r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_STRING_OR_NUMBER = re.compile(rf'"((?:[^"\\]|\\.)*)"(\s*:)?|({_NUMBER})', re.DOTALL)
_INTEGER = re.compile(r"\d+")
Span = tuple[int, int]


@dataclass(frozen=True)
class Ratings:
    """Parsed ratings, in the order of the sheet's fields.

    spans: position of each number in the answer; None if they are not all clear.
    """

    values: tuple[float, ...]
    spans: tuple[Span, ...] | None


def read_ratings(text: str, sheet: RatingSheet) -> Ratings:
    """Parse an answer to a sheet: its last object, after any reasoning.

    Raises MalformedAnswerError if numbers are missing, too many or off the scale, if a field occurs
    twice, or if there is no JSON object.
    """
    names = [name for name, _ in sheet.fields]
    found = find_objects(text, pairs=list, part=answer_part(text))
    chosen = choose_last(found, lambda one: names[0] in dict(one.value))
    if chosen is None:
        raise MalformedAnswerError("it holds no JSON object")
    fields = dict(chosen.value)
    if len(fields) < len(chosen.value):
        raise MalformedAnswerError("a field occurs twice")
    values: list[float] = []
    for name, count in sheet.fields:
        values += _numbers(name, count, fields, sheet.top)
    return Ratings(tuple(values), _spans(text, chosen, sheet))


def expected_values(
    text: str, spans: Sequence[Span], logprobs: Sequence[TokenLogprobs], top: int = MAX_RATING
) -> list[float] | None:
    """Return the expected value of each number; None if any has no log probabilities.

    text: the answer. spans: position of each number in it. logprobs: in the order of the answer.
    See `expected_value`.
    """
    starts = [one.start for one in logprobs]
    values = []
    for (start, stop), first in zip(spans, first_token_logprobs(spans, logprobs), strict=True):
        value = None
        if first is not None and _INTEGER.fullmatch(text[start:stop]):
            second = _covering(logprobs, starts, start + 1)
            value = expected_value(first, None if second is first else second, top)
        if value is None:
            return None
        values.append(value)
    return values


def expected_value(
    first: TokenLogprobs, second: TokenLogprobs | None = None, top: int = MAX_RATING
) -> float | None:
    """Return the expected value of a number from 0 to `top`; None if no number has a probability.

    first, second: the log probabilities at the number's first token and, if known, at the next one.
    As in Bills et al. (2023, "Language models can explain neurons in language models"), the
    probabilities of number tokens are scaled to sum to 1. A scale to 10 needs a tokenizer with the
    token "10" (`tasks.simulate.scale`). If the model still writes "1" and "0", the probability of
    "1" is split by that of "0" after it.
    """
    chances = [0.0] * (top + 1)
    for text, logprob in first.options:
        number = text.strip()
        if _INTEGER.fullmatch(number) and int(number) <= top:
            chances[int(number)] += math.exp(logprob)
    if top == MAX_RATING and first.token.strip() == "1" and second is not None:
        followed_by_0 = sum(math.exp(logprob) for text, logprob in second.options if text == "0")
        ten = chances[1] * min(followed_by_0, 1.0)
        chances[1] -= ten
        chances[10] += ten
    total = sum(chances)
    if total <= 0:
        return None
    return sum(number * chance for number, chance in enumerate(chances)) / total


def first_token_logprobs(
    spans: Sequence[Span], logprobs: Sequence[TokenLogprobs]
) -> list[TokenLogprobs | None]:
    """Return the log probabilities at each number's first token; None where unknown."""
    starts = [one.start for one in logprobs]
    return [_covering(logprobs, starts, start) for start, _ in spans]


def number_probability(logprobs: TokenLogprobs) -> float:
    """Return the probability that a token is a number."""
    return sum(
        math.exp(logprob) for text, logprob in logprobs.options if _INTEGER.fullmatch(text.strip())
    )


def find_numbers(text: str, part: Span) -> list[Span]:
    """Return the positions of the integers in a part of a text."""
    return [found.span() for found in _INTEGER.finditer(text, *part)]


def _numbers(name: str, count: int, fields: dict[str, Any], top: int) -> list[float]:
    if name not in fields:
        raise MalformedAnswerError(f'the field "{name}" is missing')
    listed = fields[name]
    if name == SAMPLE and not isinstance(listed, list):
        listed = [listed]
    if not isinstance(listed, list):
        raise MalformedAnswerError(f'the field "{name}" is no list of numbers')
    if len(listed) != count:
        raise MalformedAnswerError(
            f'the field "{name}" has {len(listed)} numbers instead of {count}'
        )
    for value in listed:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= top:
            raise MalformedAnswerError(
                f'the field "{name}" holds something else than numbers from 0 to {top}'
            )
    return [float(value) for value in listed]


def _spans(text: str, chosen: JsonObject, sheet: RatingSheet) -> tuple[Span, ...] | None:
    by_field: dict[str, list[Span]] = {}
    name = ""
    for part in _STRING_OR_NUMBER.finditer(text, chosen.start, chosen.end):
        if part[3] is not None:
            by_field.setdefault(name, []).append(part.span(3))
        elif part[2] is not None:
            name = part[1]
    spans = [span for name, _ in sheet.fields for span in by_field.get(name, [])]
    return tuple(spans) if len(spans) == sheet.numbers else None


def _covering(
    logprobs: Sequence[TokenLogprobs], starts: Sequence[int], character: int
) -> TokenLogprobs | None:
    """Return the log probabilities of the token that contains a character."""
    index = bisect_right(starts, character) - 1
    if index < 0 or character >= logprobs[index].start + len(logprobs[index].token):
        return None
    return logprobs[index]
