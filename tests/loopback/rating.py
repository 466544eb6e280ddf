"""Answers what a neuron does at every place of a sample, by the sample and by what is said of it.

Nothing else is known here: what is to be rated is read from the question, the pictures are looked
at, and of the words about the neuron those count that name a color, a shape, a size, a place, or a
word of the text. The opinion on a place is a number with a fraction; what is written is the nearest
whole one, and the two next to it have the probabilities that make up the opinion.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tests.loopback.looking import COLORS
from tests.loopback.protocol import open_picture
from tests.loopback.seeing import PLACES, WIDTHS, Sight, see, within_grid

HIGHEST = 10.0
NAMES = (*COLORS, *WIDTHS, *PLACES, "large", "small")
OF_IMAGES = re.compile(r"\b(images?|regions?|pictures?|patch(es)?)\b")
OF_WORDS = re.compile(r'\bwords? "([^"]+)"')
FIGURES = re.compile(r"\([^)]*\)")
TOKEN = re.compile(r"\d+\{((?:\\.|[^\\{}])*)\}")
FIELDS = re.compile(
    r'"([^"]+)"(?: to "([^"]+)")?(?:, each)?(?: with (\d+) numbers?)?(?:; |\.$|, and nothing)'
)
PROBE = "Name four whole numbers"
WHOLE_NUMBERS = r"\d+|[^\d\s]+|\s+"
DIGITS = r"\d|[^\d\s]+|\s+"
"""How answers are cut into tokens."""
LIKELY_OTHERS = ("{", "\n", "the", "none")


@dataclass(frozen=True)
class Said:
    """An answer in text, and the opinion behind each number in it: by the place (character) at
    which the number begins."""

    text: str
    opinions: dict[int, float]


@dataclass(frozen=True)
class Asked:
    """A question: fields with how many numbers each, pictures, tokens, what is said or None, and
    the top of the scale."""

    fields: list[tuple[str, int]]
    pictures: list[str]
    tokens: list[str]
    explanation: str | None
    top: int


def is_about_ratings(body: dict[str, Any]) -> bool:
    system = body["messages"][0]["content"]
    return isinstance(system, str) and (
        system.startswith("You predict what a neuron") or system.startswith(PROBE)
    )


def rate(body: dict[str, Any], fault: str = "") -> Said:
    """The answer to the question; fault: miscount leaves a number out of the first field,
    no_ten the 10 that was asked for."""
    if body["messages"][0]["content"].startswith(PROBE):
        return _written({"numbers": [10.0 if fault != "no_ten" else 5.0, 7.3, 2.6, 0.0]})
    asked = read_question(body)
    values: dict[str, list[float]] = {}
    looked = [_look(picture, asked, number) for number, picture in enumerate(asked.pictures, 1)]
    read = _read(asked)
    for name, count in asked.fields:
        row = re.fullmatch(r"(?:picture (\d+) )?row (\d+)", name)
        line = re.fullmatch(r"line (\d+)", name)
        if row:
            values[name] = looked[int(row[1] or 1) - 1][int(row[2]) - 1].tolist()
        elif line:
            first = 10 * (int(line[1]) - 1)
            values[name] = read[first : first + 10]
        assert name == "sample" or len(values[name]) == count, (name, count)
    everything = [value for some in values.values() for value in some]
    values["sample"] = [max(everything, default=0.0)]
    values = {
        name: [asked.top / HIGHEST * value for value in some] for name, some in values.items()
    }
    if fault == "miscount":
        values[asked.fields[0][0]].pop()
    return _written(values)


def rate_plainly(body: dict[str, Any]) -> str:
    """Without looking: zeros, as many as the schema wants."""
    wanted = body["response_format"]["json_schema"]["schema"]["properties"]
    return json.dumps({name: [0] * form.get("minItems", 1) for name, form in wanted.items()})


def read_question(body: dict[str, Any]) -> Asked:
    """The question as it was first asked, whatever was said after it."""
    parts = body["messages"][1]["content"]
    pictures = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    lines = [p["text"] for p in parts if p.get("text", "").startswith("line 1:")]
    question = parts[-1]["text"]
    told = re.search(r"<explanation>(.*)</explanation>", question, re.DOTALL)
    fields: list[tuple[str, int]] = []
    listed = question[question.rindex("in this order: ") + len("in this order: ") :]
    for first, last, count in FIELDS.findall(listed):
        stem, _, number = first.rpartition(" ")
        if last:
            reach = range(int(number), int(last.rpartition(" ")[2]) + 1)
            fields += [(f"{stem} {place}", int(count)) for place in reach]
        else:
            fields.append((first, int(count or 1)))
    return Asked(
        fields,
        pictures,
        [re.sub(r"\\(.)", r"\1", token) for line in lines for token in TOKEN.findall(line)],
        told[1] if told else None,
        int(re.search(r"to (\d+) \(it is as active", body["messages"][0]["content"])[1]),  # type: ignore[index]
    )


def _look(picture: str, asked: Asked, number: int) -> np.ndarray:
    """The opinion on every cell of a picture [rows, columns]: how much of it shows what excites."""
    of = f"picture {number} " if len(asked.pictures) > 1 else ""
    counts = [count for name, count in asked.fields if name.startswith(f"{of}row ")]
    rows, columns = len(counts), counts[0]
    sight = _sight(picture, rows, columns)
    if asked.explanation is None:  # Whatever is there rather excites it than the background.
        names = frozenset(trait for thing in sight.things for trait in thing.traits)
        highest = 2.0
    else:
        names, highest = _names(asked.explanation), HIGHEST
    shown = sight.showing(names)
    return highest * np.array(
        [
            [cell.mean() for cell in np.array_split(band, columns, axis=1)]
            for band in np.array_split(shown.astype(np.float64), rows, axis=0)
        ]
    )


@lru_cache(maxsize=512)
def _sight(url: str, rows: int, columns: int) -> Sight:
    return see(within_grid(open_picture(url), rows, columns))


def _names(explanation: str) -> frozenset[str]:
    """What of a picture is spoken of."""
    said = FIGURES.sub("", explanation).lower()
    rest = OF_WORDS.sub("", said)
    if OF_WORDS.search(said) and not OF_IMAGES.search(rest):
        return frozenset()
    return frozenset(name for name in NAMES if re.search(rf"(?<!\w){name}(?!\w)", rest))


def _read(asked: Asked) -> list[float]:
    """The opinion on every token: whether its word is one that is spoken of."""
    if asked.explanation is None:
        return [1.0 if len(token.strip()) > 3 else 0.0 for token in asked.tokens]
    wanted = {word.lower() for word in OF_WORDS.findall(asked.explanation)}
    text = "".join(asked.tokens)
    spans = [m.span() for m in re.finditer(r"\w+", text) if m[0].lower() in wanted]
    opinions, start = [], 0
    for token in asked.tokens:
        stop = start + len(token)
        opinions.append(HIGHEST if any(a < stop and start < b for a, b in spans) else 0.0)
        start = stop
    return opinions


def _written(values: dict[str, list[float]]) -> Said:
    text, opinions = "{", {}
    for place, (name, numbers) in enumerate(values.items()):
        text += f'{", " if place else ""}"{name}": '
        bare = name == "sample"
        text += "" if bare else "["
        for index, opinion in enumerate(numbers):
            text += ", " if index else ""
            opinions[len(text)] = opinion
            text += str(math.floor(opinion + 0.5))
        text += "" if bare else "]"
    return Said(text + "}", opinions)


def with_odds(
    text: str, opinions: dict[int, float], most: int, cut: str = WHOLE_NUMBERS
) -> list[dict[str, Any]]:
    """The tokens of an answer with at most so many alternatives each. cut: into which tokens."""
    tokens = []
    for piece in re.finditer(cut, text):
        chances = {piece[0]: 0.9} | dict.fromkeys(LIKELY_OTHERS, 0.02)
        if piece.start() in opinions:
            opinion = opinions[piece.start()]
            low, share = math.floor(opinion), opinion - math.floor(opinion)
            chances = {str(low): 0.9 * (1 - share), str(low + 1): 0.9 * share}
            chances = {number: chance for number, chance in chances.items() if chance > 0}
            if cut == DIGITS and "10" in chances:
                chances["1"] = chances.pop("10")
            chances |= dict.fromkeys(LIKELY_OTHERS, 0.02)
        told = [_alternative(said, chance) for said, chance in chances.items()]
        told.sort(key=lambda one: -one["logprob"])
        own = next(one for one in told if one["token"] == piece[0])
        tokens.append(own | {"top_logprobs": told[:most]})
    return tokens


def held_to_it(told: dict[str, Any]) -> None:
    """As of a model that would rather have said what is no number: a thousandth of the chances."""
    told["logprob"] += math.log(0.001)
    for one in told["top_logprobs"]:
        one["logprob"] += math.log(0.001 if one["token"].strip().isdecimal() else 1)


def _alternative(said: str, chance: float) -> dict[str, Any]:
    return {"token": said, "logprob": math.log(chance), "bytes": list(said.encode())}
