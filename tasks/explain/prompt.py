"""Write the prompt about a neuron for a chat model, and parse the answer."""

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
from neuron_atlas.tasks.explain.confidence import read_confidence
from neuron_atlas.tasks.explain.draw import Render
from neuron_atlas.tasks.models.content import data_url, image_part, printable, text_part
from neuron_atlas.tasks.models.dialogue import MalformedAnswerError
from neuron_atlas.tasks.models.json_answer import choose_last, find_objects
from neuron_atlas.tasks.models.reasoning import answer_part

LAYOUT = 3
"""Version of how samples are drawn and laid out; part of `prompt_hash`."""

_LONGEST_EXPLANATION = 2000
_LONGEST_EVIDENCE = 2000
"""Characters. A longer answer was not what was asked for."""
_RENDERS = get_args(Render)
_PROMPTS = {
    name: files("neuron_atlas.tasks.explain")
    .joinpath("prompts", f"{name}.txt")
    .read_text("utf-8")
    .strip()
    for name in (
        *("system", "retry", "format-text", "format-contrast", *TYPES),
        *("example-visual", "example-text", "example-both"),
        *(f"format-{render}" for render in _RENDERS),
    )
}
_WHERE = {"heat": "under the heat", "mask": "in the bright patches", "crop": "inside the frames"}
_FIELD_BY_LABEL = {
    "evidence for": "evidence_for",
    "evidence against": "evidence_against",
    "explanation": "explanation",
    "confidence": "confidence",
}
_LINE = re.compile(
    rf"^[\s*#>-]*({'|'.join(_FIELD_BY_LABEL)})[\s*]*:[\s*]*(\S.*)$", re.IGNORECASE | re.MULTILINE
)
# In this order, so that the model looks before it concludes: servers keep it.
_FIELDS = {
    "evidence_for": {
        "type": "string",
        "description": "what the active places show, and what they share, in at most 60 words",
    },
    "evidence_against": {
        "type": "string",
        "description": "what does not fit, in at most 30 words, empty if all fits",
    },
    "explanation": {"type": "string", "description": "what the neuron responds to, one sentence"},
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
    """One sample of a prompt: a drawn picture, a marked text, or both.

    peak: the highest level, 1 to 10, of the sample; 0 for a contrast.
    """

    picture: Image.Image | None
    text: str | None
    peak: int


@dataclass(frozen=True)
class ParsedAnswer:
    """Fields of a parsed answer. explanation: one line. confidence: 0 to 1; None if missing."""

    explanation: str
    evidence_for: str
    evidence_against: str
    confidence: float | None


def prompt_hash(render: Render, contrasts: bool) -> str:
    """Return a hash of the prompt files used with these settings, the answer's schema and the
    layout of samples."""
    unused = {f"format-{other}" for other in _RENDERS if other != render}
    unused |= set() if contrasts else {"format-contrast"}
    prompts = {name: text for name, text in _PROMPTS.items() if name not in unused}
    decisive = json.dumps([LAYOUT, render, _WHERE[render], prompts, ANSWER_FORMAT], sort_keys=True)
    return hashlib.sha256(decisive.encode()).hexdigest()[:16]


def first_messages(
    neuron_type: str, samples: Sequence[RenderedExample], detail: str, render: Render
) -> list[dict[str, Any]]:
    """Return the messages that ask about a neuron.

    samples: active samples, then contrasts. detail: low, high or auto, for the pictures.
    """
    count = sum(sample.peak > 0 for sample in samples)
    question = Template(_PROMPTS[neuron_type]).substitute(count=count, where=_WHERE[render])
    parts = [text_part(question)]
    for sample in samples:
        tag, peak = ("sample", f", peak {sample.peak}") if sample.peak else ("contrast", "")
        text = f"\n{sample.text}" if sample.text is not None else ""
        parts.append(text_part(f"<{tag}{peak}>{text}"))
        if sample.picture is not None:
            parts.append(image_part(data_url(sample.picture), detail))
        parts.append(text_part(f"</{tag}>"))
    return [
        {"role": "system", "content": _system(neuron_type, render, count < len(samples))},
        {"role": "user", "content": parts},
    ]


def _system(neuron_type: str, render: Render, contrasts: bool) -> str:
    """Return the system prompt, with only the parts that samples of this type need."""
    names = [f"format-{render}"] if neuron_type != "text" else []
    names += ["format-text"] if neuron_type != "visual" else []
    names += ["format-contrast"] if contrasts else []
    example = neuron_type if neuron_type in ("visual", "text") else "both"
    return Template(_PROMPTS["system"]).substitute(
        sample_format="\n".join(_PROMPTS[name] for name in names),
        example=Template(_PROMPTS[f"example-{example}"]).substitute(where=_WHERE[render]),
    )


def retry_message(error: str) -> str:
    """Return the message that asks again after an answer that could not be parsed."""
    return Template(_PROMPTS["retry"]).substitute(error=error)


def read_answer(text: str) -> ParsedAnswer:
    """Parse a model's answer: JSON, alone, in a fence or within prose, or lines such as
    `Explanation: ...`. Of several objects the last one counts. Reasoning is not read.

    Raises MalformedAnswerError if the explanation is missing or too long, or if the confidence is
    not clear.
    """
    start, end = answer_part(text)
    chosen = choose_last(
        find_objects(text, part=(start, end)),
        lambda one: _has_explanation(_with_plain_names(one.value)),
    )
    fields = None if chosen is None else _with_plain_names(chosen.value)
    if fields is None and "{" not in text[start:end]:
        fields = {
            _FIELD_BY_LABEL[found[1].lower()]: found[2].strip("* ")
            for found in _LINE.finditer(text[start:end])
        }
    if not fields:
        raise MalformedAnswerError("it holds no JSON object")
    explanation = fields.get("explanation")
    if not _has_explanation(fields) or not _to_text(explanation):
        raise MalformedAnswerError('the field "explanation" is missing or holds no sentence')
    if len(_to_text(explanation)) > _LONGEST_EXPLANATION:
        raise MalformedAnswerError(
            f'the field "explanation" has {len(_to_text(explanation)):,} characters instead of one '
            "sentence"
        )
    return ParsedAnswer(
        explanation=_to_text(explanation),
        evidence_for=_to_text(fields.get("evidence_for"))[:_LONGEST_EVIDENCE],
        evidence_against=_to_text(fields.get("evidence_against"))[:_LONGEST_EVIDENCE],
        confidence=read_confidence(fields.get("confidence")),
    )


def _with_plain_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with names in lower case, joined by underscores, as they were asked for."""
    return {re.sub(r"[\s-]+", "_", name.strip().lower()): part for name, part in fields.items()}


def _has_explanation(fields: dict[str, Any]) -> bool:
    """Return whether an object has an explanation: text, or a list of texts."""
    explanation = fields.get("explanation")
    parts = explanation if isinstance(explanation, list) else [explanation]
    return bool(parts) and all(isinstance(part, str) for part in parts)


def _to_text(value: Any) -> str:
    """Return a field as text. It should be a string, but may be a list of strings or missing."""
    parts = value if isinstance(value, list) else [value]
    return "; ".join(filter(None, (printable(str(part)) for part in parts if part)))
