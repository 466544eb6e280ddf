"""What a chat model is told of a sample and of a neuron, for it to rate the one by the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

from neuron_atlas.tasks.models.content import escape, picture, words
from neuron_atlas.tasks.simulate.scale import HIGHEST
from neuron_atlas.tasks.simulate.sheet import PER_LINE, Sheet

LAYOUT = 1
"""To be raised when samples are drawn or laid out differently: it is part of the wording's hash."""

_TOLD = {
    name: files("neuron_atlas.tasks.simulate")
    .joinpath("prompts", f"{name}.txt")
    .read_text("utf-8")
    .strip()
    for name in ("system", "told", "empty", "again", "probe")
}


def wording() -> str:
    """Names the wording: a hash of the prompt files, of the schema of answers, and of the layout of
    samples."""
    schema = Sheet(((2, 2),), PER_LINE + 1).response_format()
    decisive = json.dumps([LAYOUT, PER_LINE, _TOLD, schema], sort_keys=True)
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def show_sample(urls: Sequence[str], tokens: Sequence[str], detail: str) -> list[dict[str, Any]]:
    """The beginning of the question, which is the same for all explanations: a server that keeps
    what it made of a beginning has to look at the pictures once.

    urls: of the pictures with their grids. tokens: of the text.
    """
    parts = [words("<sample>")]
    for number, url in enumerate(urls, start=1):
        if len(urls) > 1:
            parts.append(words(f"picture {number}:"))
        parts.append(picture(url, detail))
    if tokens:
        parts.append(words("\n".join(_lines(tokens))))
    return [*parts, words("</sample>")]


def ask(shown: Sequence[dict[str, Any]], explanation: str, sheet: Sheet) -> list[dict[str, Any]]:
    """The question about a sample that is shown; one without words says that nothing is known."""
    told = Template(_TOLD["told" if explanation.strip() else "empty"])
    said = told.substitute(explanation=escape(explanation), fields=sheet.told())
    system = Template(_TOLD["system"]).substitute(per_line=PER_LINE, top=sheet.top)
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": [*shown, words(said)]},
    ]


def ask_again(complaint: str, sheet: Sheet) -> str:
    """The second question, after an answer that could not be read for what is complained of."""
    return Template(_TOLD["again"]).substitute(error=complaint, fields=sheet.told())


def probe() -> list[dict[str, Any]]:
    """A question that is answered with a few numbers, a 10 among them."""
    return [{"role": "user", "content": _TOLD["probe"]}]


def probe_format() -> dict[str, Any]:
    """The JSON schema of its answer."""
    number = {"type": "integer", "enum": list(range(HIGHEST + 1))}
    listed = {"type": "array", "items": number, "minItems": 4, "maxItems": 4}
    schema = {
        "type": "object",
        "properties": {"numbers": listed},
        "required": ["numbers"],
        "additionalProperties": False,
    }
    named = {"name": "some_numbers", "strict": True, "schema": schema}
    return {"type": "json_schema", "json_schema": named}


def _lines(tokens: Sequence[str]) -> list[str]:
    lines = []
    for line, first in enumerate(range(0, len(tokens), PER_LINE), start=1):
        numbered = enumerate(tokens[first : first + PER_LINE], start=1)
        told = " ".join(f"{number}{{{escape(token)}}}" for number, token in numbered)
        lines.append(f"line {line}: {told}")
    return lines
