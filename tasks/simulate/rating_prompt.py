"""Write the prompt in which a chat model rates a sample by an explanation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from string import Template
from typing import Any

from neuron_atlas.tasks.models.content import escape, image_part, text_part
from neuron_atlas.tasks.simulate.scale import MAX_RATING
from neuron_atlas.tasks.simulate.sheet import PER_LINE, RatingSheet

LAYOUT = 1
"""Version of how samples are drawn and laid out; part of `prompt_hash`."""

_PROMPTS = {
    name: files("neuron_atlas.tasks.simulate")
    .joinpath("prompts", f"{name}.txt")
    .read_text("utf-8")
    .strip()
    for name in ("system", "explained", "empty", "retry", "probe")
}


def prompt_hash() -> str:
    """Return a hash of the prompt files, the answers' schema and the layout of samples."""
    schema = RatingSheet(((2, 2),), PER_LINE + 1).response_format()
    decisive = json.dumps([LAYOUT, PER_LINE, _PROMPTS, schema], sort_keys=True)
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def sample_parts(urls: Sequence[str], tokens: Sequence[str], detail: str) -> list[dict[str, Any]]:
    """Return the first parts of a prompt: the sample's pictures and numbered tokens.

    They are the same for all explanations, so a server with a prefix cache encodes the pictures
    once. urls: data URLs of the pictures with their grids. tokens: of the text.
    """
    parts = [text_part("<sample>")]
    for number, url in enumerate(urls, start=1):
        if len(urls) > 1:
            parts.append(text_part(f"picture {number}:"))
        parts.append(image_part(url, detail))
    if tokens:
        parts.append(text_part("\n".join(_lines(tokens))))
    return [*parts, text_part("</sample>")]


def rating_messages(
    sample: Sequence[dict[str, Any]], explanation: str, sheet: RatingSheet
) -> list[dict[str, Any]]:
    """Return the messages that ask for ratings.

    sample: from `sample_parts`. An empty explanation gets its own prompt for an unknown
    neuron.
    """
    template = Template(_PROMPTS["explained" if explanation.strip() else "empty"])
    question = template.substitute(explanation=escape(explanation), fields=sheet.list_fields())
    system = Template(_PROMPTS["system"]).substitute(per_line=PER_LINE, top=sheet.top)
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": [*sample, text_part(question)]},
    ]


def retry_message(error: str, sheet: RatingSheet) -> str:
    """Return the message that asks again after an answer that could not be parsed."""
    return Template(_PROMPTS["retry"]).substitute(error=error, fields=sheet.list_fields())


def probe_messages() -> list[dict[str, Any]]:
    """Return the messages that ask for a few numbers, among them 10."""
    return [{"role": "user", "content": _PROMPTS["probe"]}]


def probe_format() -> dict[str, Any]:
    """Return the response format of the probe's answer: a JSON schema with four numbers."""
    number = {"type": "integer", "enum": list(range(MAX_RATING + 1))}
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
        listed = " ".join(f"{number}{{{escape(token)}}}" for number, token in numbered)
        lines.append(f"line {line}: {listed}")
    return lines
