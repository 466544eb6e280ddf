"""What a chat model is told about a neuron, and how its answer is read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any, get_args

from PIL import Image

from neuron_atlas.tasks.artifacts import TYPES
from neuron_atlas.tasks.explain.draw import Render
from neuron_atlas.tasks.models.content import data_url, picture, printable, words
from neuron_atlas.tasks.models.dialogue import Malformed
from neuron_atlas.tasks.models.json_answer import find_objects

LAYOUT = 2
"""To be raised when samples are drawn or laid out differently: it is part of the wording's hash."""

_RENDERS = get_args(Render)
_TOLD = {
    name: files("neuron_atlas.tasks.explain")
    .joinpath("prompts", f"{name}.txt")
    .read_text("utf-8")
    .strip()
    for name in (
        *("system", "again", "shown-text", "shown-contrast", *TYPES),
        *(f"shown-{render}" for render in _RENDERS),
    )
}
_WHERE = {"heat": "under the heat", "mask": "in the bright patches", "crop": "inside the frames"}
_NAMES = {
    "explanation": "explanation",
    "evidence for": "evidence_for",
    "evidence against": "evidence_against",
    "confidence": "confidence",
}
_LINE = re.compile(
    rf"^[\s*#>-]*({'|'.join(_NAMES)})[\s*]*:[\s*]*(\S.*)$", re.IGNORECASE | re.MULTILINE
)
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


@dataclass(frozen=True)
class RenderedExample:
    """One sample as the model will see it: a drawn picture, a marked text, or both.

    peak: its highest level, 1 to 10; 0 makes it a contrast.
    """

    picture: Image.Image | None
    text: str | None
    peak: int


@dataclass(frozen=True)
class Reading:
    """An answer, read. explanation: one line. confidence: 0 to 1, or None where it gave none."""

    explanation: str
    evidence_for: str
    evidence_against: str
    confidence: float | None


def wording(render: Render, contrasts: bool) -> str:
    """Names the wording: a hash of the prompt files that are used with these settings, of the
    schema of the answer, and of the layout of samples."""
    unused = {f"shown-{other}" for other in _RENDERS if other != render}
    unused |= set() if contrasts else {"shown-contrast"}
    told = {name: text for name, text in _TOLD.items() if name not in unused}
    decisive = json.dumps([LAYOUT, render, _WHERE[render], told, ANSWER_FORMAT], sort_keys=True)
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def first_messages(
    kind: str, samples: Sequence[RenderedExample], detail: str, render: Render
) -> list[dict[str, Any]]:
    """The question about a neuron of type `kind`, its samples before their contrasts; `detail` is
    the protocol's, for pictures."""
    count = sum(sample.peak > 0 for sample in samples)
    said = Template(_TOLD[kind]).substitute(count=count, where=_WHERE[render])
    parts = [words(said)]
    for sample in samples:
        tag, told = ("sample", f", peak {sample.peak}") if sample.peak else ("contrast", "")
        text = f"\n{sample.text}" if sample.text is not None else ""
        parts.append(words(f"<{tag}{told}>{text}"))
        if sample.picture is not None:
            parts.append(picture(data_url(sample.picture), detail))
        parts.append(words(f"</{tag}>"))
    return [
        {"role": "system", "content": _system(kind, render, count < len(samples))},
        {"role": "user", "content": parts},
    ]


def _system(kind: str, render: Render, contrasts: bool) -> str:
    """Only what is needed to read the samples of this type: the rest would be paid for."""
    names = [f"shown-{render}"] if kind != "text" else []
    names += ["shown-text"] if kind != "visual" else []
    names += ["shown-contrast"] if contrasts else []
    return Template(_TOLD["system"]).substitute(shown="\n".join(_TOLD[name] for name in names))


def again(error: str) -> str:
    """The second question, after an answer that could not be read for this error."""
    return Template(_TOLD["again"]).substitute(error=error)


def read_answer(said: str) -> Reading:
    """Read what the model said, leniently: JSON alone, in a fence or within prose, or lines such
    as `Explanation: ...`.

    Raises Malformed where there is no explanation, or a confidence that is none.
    """
    given = _json_object(said)
    if given is None and "{" not in said:
        given = {_NAMES[found[1].lower()]: found[2].strip("* ") for found in _LINE.finditer(said)}
    if not given:
        raise Malformed("it holds no JSON object")
    explanation = given.get("explanation")
    if not isinstance(explanation, str) or not printable(explanation):
        raise Malformed('the field "explanation" is missing or holds no sentence')
    return Reading(
        explanation=printable(explanation),
        evidence_for=_in_words(given.get("evidence_for")),
        evidence_against=_in_words(given.get("evidence_against")),
        confidence=_share(given.get("confidence")),
    )


def _json_object(said: str) -> dict[str, Any] | None:
    """The first object in the text that has an explanation, else the first object."""
    objects = [found.value for found in find_objects(said)]
    return next((found for found in objects if "explanation" in found), None) or next(
        iter(objects), None
    )


def _in_words(given: Any) -> str:
    """A field that should be a string, and may be a list of them, or nothing."""
    parts = given if isinstance(given, list) else [given]
    return "; ".join(printable(str(part)) for part in parts if part)


def _share(given: Any) -> float | None:
    """A confidence, also where it is written as text or in percent. Raises Malformed."""
    if given is None:
        return None
    value = given
    if isinstance(given, str):
        number, percent = given.strip().removesuffix("%"), given.strip().endswith("%")
        try:
            value = float(number) / (100 if percent else 1)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Malformed('the field "confidence" is not a number from 0 to 1')
    return float(value)
