"""What a chat model is told about a neuron, and how its answer is read."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from PIL import Image

from tasks.artifacts import TYPES

LAYOUT = 1
"""To be raised when samples are drawn or laid out differently: it is part of the prompt's hash."""

_JPEG_QUALITY = 90
_TOLD = {
    name: files("tasks.explain").joinpath("prompts", f"{name}.txt").read_text("utf-8").strip()
    for name in ("system", "again", *TYPES)
}
_PROSE = re.compile(r"^[\s*#>]*explanation[\s*]*:[\s*]*(\w.*)$", re.IGNORECASE | re.MULTILINE)
_FIELDS = {
    "explanation": {"type": "string", "description": "what the neuron responds to, one sentence"},
    "evidence_for": {"type": "string", "description": "which samples show it best"},
    "evidence_against": {"type": "string", "description": "what does not fit, empty if all fits"},
    "confidence": {"type": "number", "description": "from 0 to 1"},
}
ANSWER_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "neuron_explanation",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": _FIELDS,
            "required": list(_FIELDS),
            "additionalProperties": False,
        },
    },
}
PROMPT_HASH = hashlib.sha256(
    json.dumps([LAYOUT, _TOLD, ANSWER_FORMAT], sort_keys=True).encode()
).hexdigest()[:16]
"""Names the wording: the prompt files, the schema of the answer, and the layout of samples."""


@dataclass(frozen=True)
class Shown:
    """One sample as the model will see it: a drawn picture, a marked text, or both."""

    picture: Image.Image | None
    text: str | None


@dataclass(frozen=True)
class Reading:
    """An answer, read. explanation: one line. confidence: 0 to 1, or None where it gave none."""

    explanation: str
    evidence_for: str
    evidence_against: str
    confidence: float | None


class Malformed(ValueError):
    """An answer that cannot be read; the message says why, in words for the model."""


def first_messages(kind: str, samples: Sequence[Shown], detail: str) -> list[dict[str, Any]]:
    """The question about a neuron of type `kind`; `detail` is the protocol's, for pictures."""
    parts = [_words(Template(_TOLD[kind]).substitute(count=len(samples)))]
    for sample in samples:
        parts.append(_words("<sample>" + (f"\n{sample.text}" if sample.text is not None else "")))
        if sample.picture is not None:
            url = _data_url(sample.picture)
            parts.append({"type": "image_url", "image_url": {"url": url, "detail": detail}})
        parts.append(_words("</sample>"))
    return [
        {"role": "system", "content": _TOLD["system"]},
        {"role": "user", "content": parts},
    ]


def second_messages(first: Sequence[dict[str, Any]], said: str, error: str) -> list[dict[str, Any]]:
    """The same question once more, with the answer that could not be read and why."""
    answered = [{"role": "assistant", "content": said}] if said.strip() else []
    again = {"role": "user", "content": Template(_TOLD["again"]).substitute(error=error)}
    return [*first, *answered, again]


def read_answer(said: str) -> Reading:
    """Read what the model said, leniently: JSON alone, JSON within prose, or `Explanation: ...`.

    Raises Malformed where there is no explanation, or a confidence that is none.
    """
    given = _json_object(said)
    if given is None:
        line = _PROSE.search(said)
        if line is None or "{" in said:
            raise Malformed("it holds no JSON object")
        given = {"explanation": line[1]}
    explanation = given.get("explanation")
    if not isinstance(explanation, str) or not one_line(explanation):
        raise Malformed('the field "explanation" is missing or holds no sentence')
    confidence = given.get("confidence")
    if confidence is not None and not (
        isinstance(confidence, int | float)
        and not isinstance(confidence, bool)
        and 0 <= confidence <= 1
    ):
        raise Malformed('the field "confidence" is not a number from 0 to 1')
    return Reading(
        explanation=one_line(explanation),
        evidence_for=one_line(str(given.get("evidence_for") or "")),
        evidence_against=one_line(str(given.get("evidence_against") or "")),
        confidence=None if confidence is None else float(confidence),
    )


def one_line(text: str) -> str:
    """The text on one line, with nothing in it that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _json_object(said: str) -> dict[str, Any] | None:
    """The first object in the text that has an explanation, else the first object."""
    decoder = json.JSONDecoder()
    objects = []
    for start in re.finditer(r"\{", said):
        try:
            found, _ = decoder.raw_decode(said, start.start())
        except (ValueError, RecursionError):
            continue
        objects.append(found)
    return next((found for found in objects if "explanation" in found), None) or next(
        iter(objects), None
    )


def _words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _data_url(picture: Image.Image) -> str:
    encoded = io.BytesIO()
    # Colours in full resolution (4:4:4): a patch is only a dozen pixels wide.
    picture.save(encoded, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
