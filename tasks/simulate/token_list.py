"""Write the prompt that lists a text's tokens, each followed by a number or a placeholder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from neuron_atlas.tasks.models.content import escape
from neuron_atlas.tasks.models.logprobs import TokenLogprobs
from neuron_atlas.tasks.simulate.scale import MAX_RATING, top_of_scale

TAB = "\t"
PLACEHOLDERS = ("unknown", "?", "_")
"""Placeholders for an unknown number; the first that the tokenizer separates from a tab is used.
Bills et al. (2023) write unknown; tokenizers that merge a tab with letters need another."""
_PROBE_TOKEN = "x"
_FIRST, _LAST = "<start>", "<end>"
_PROMPTS = {
    name: files("neuron_atlas.tasks.simulate")
    .joinpath("prompts", f"list-{name}.txt")
    .read_text("utf-8")
    .strip()
    for name in ("system", "explained", "empty")
}


@dataclass(frozen=True)
class _Example:
    """Few-shot example: a neuron whose activations are given from token `first_known` on, and
    unknown before it. So the model learns that a number may follow any run of placeholders.

    tens: activations, 0 to 10. The names of fields enter `prompt_hash`.
    """

    explanation: str
    tokens: tuple[str, ...]
    tens: tuple[int, ...]
    first_known: int


_EXAMPLES = (
    _Example(
        "words for animals, dogs above all",
        ("The", " old", " dog", " sleeps", ";", " a", " bird", " and", " two", " dogs", " wake"),
        (0, 0, 10, 1, 0, 0, 6, 0, 0, 10, 0),
        first_known=3,
    ),
    _Example(
        "the end of a sentence",
        (" It", " rains", ".", " We", " stay", " in", ",", " all", " day", "."),
        (0, 0, 9, 0, 0, 0, 2, 0, 0, 10),
        first_known=1,
    ),
)
MOST_EXAMPLES = len(_EXAMPLES)


@dataclass(frozen=True)
class Scale:
    """Scale of a model's numbers: 0 to `top`, and `placeholder` for an unknown number."""

    top: int = MAX_RATING
    placeholder: str = PLACEHOLDERS[0]

    @property
    def numbers(self) -> frozenset[str]:
        """All numbers of the scale."""
        return frozenset(str(number) for number in range(self.top + 1))

    @property
    def label(self) -> str:
        """The estimator's name in rows."""
        return f"expected 0-{self.top}, {self.placeholder} as placeholder"


def prompt_hash() -> str:
    """Return a hash of the prompt files and of all fixed text in the lists."""
    decisive = [_PROMPTS, PLACEHOLDERS, [repr(example) for example in _EXAMPLES], _FIRST, _LAST]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def simulation_messages(
    tokens: Sequence[str], explanation: str, scale: Scale, examples: int
) -> list[dict[str, Any]]:
    """Return the messages of a prompt.

    The last message is a partial answer of the assistant: the list of `tokens`, all numbers
    unknown. examples: few-shot examples before it. An empty explanation gets its own prompt for an
    unknown neuron.
    """
    messages = [_system(scale)]
    for number, example in enumerate(_EXAMPLES[:examples], start=1):
        numbers = [
            str(round(ten * scale.top / MAX_RATING)) if index >= example.first_known else None
            for index, ten in enumerate(example.tens)
        ]
        listed = _list(example.tokens, numbers, scale)
        messages += _turns(number, example.explanation, f"{listed}\n{_LAST}")
    return messages + _turns(examples + 1, explanation, _list(tokens, [None] * len(tokens), scale))


def count_numbers(tokens: Sequence[str], examples: int) -> int:
    """Return how many number positions `simulation_messages` writes. Those of `tokens` are
    the last."""
    return sum(len(example.tokens) for example in _EXAMPLES[:examples]) + len(tokens)


def number_probe_messages() -> list[dict[str, Any]]:
    """Return the messages that show `read_scale` how a tokenizer splits numbers."""
    numbers = [*(str(number) for number in range(MAX_RATING + 1)), *PLACEHOLDERS]
    listed = _list([_PROBE_TOKEN] * len(numbers), numbers, Scale())
    return [_system(Scale()), *_turns(1, "", f"{listed}\n{_LAST}")]


def read_scale(logprobs: Sequence[TokenLogprobs]) -> Scale | None:
    """Return a model's scale, from the first tokens of the numbers of `number_probe_messages`.

    None if the tokenizer merges them with the tab before them. The top follows
    `tasks.simulate.scale`: one pass over a prompt gives no probability of "0" after a "1".
    """
    tokens = [position.token.strip() for position in logprobs]
    if (
        tokens[:MAX_RATING] != [str(number) for number in range(MAX_RATING)]
        or len(tokens) <= MAX_RATING
    ):
        return None
    top = top_of_scale(tokens[MAX_RATING])
    if top < MAX_RATING and tokens[MAX_RATING] != "1":
        return None
    separate = (
        name
        for name in PLACEHOLDERS
        if any(starts_placeholder(one, name) for one in tokens[MAX_RATING + 1 :])
    )
    placeholder = next(separate, None)
    return None if placeholder is None else Scale(top, placeholder)


def starts_placeholder(token: str, placeholder: str) -> bool:
    """Return whether a token is the first one of a placeholder."""
    text = token.strip()
    return bool(text) and placeholder.startswith(text)


def _system(scale: Scale) -> dict[str, Any]:
    content = Template(_PROMPTS["system"]).substitute(top=scale.top, unknown=scale.placeholder)
    return {"role": "system", "content": content}


def _turns(number: int, explanation: str, listed: str) -> list[dict[str, Any]]:
    template = Template(_PROMPTS["explained" if explanation.strip() else "empty"])
    question = template.substitute(number=number, explanation=escape(explanation))
    return [{"role": "user", "content": question}, {"role": "assistant", "content": listed}]


def _list(tokens: Sequence[str], numbers: Sequence[str | None], scale: Scale) -> str:
    lines = [
        f"{escape(token)}{TAB}{scale.placeholder if number is None else number}"
        for token, number in zip(tokens, numbers, strict=True)
    ]
    return "\n".join([_FIRST, *lines])
