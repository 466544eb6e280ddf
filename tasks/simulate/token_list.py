"""The prompt that lists a text's tokens with a place for a number behind each, and its places."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any

from neuron_atlas.tasks.models.content import escape
from neuron_atlas.tasks.models.logprobs import Odds
from neuron_atlas.tasks.simulate.scale import HIGHEST, top_by

TAB = "\t"
PLACEHOLDERS = ("unknown", "?", "_")
"""What may stand for a number that is not told, the first that the tokenizer keeps apart from the
tab before it. Bills et al. (2023) write unknown; tokenizers that put what is no letter together
with the letters behind it need another."""
_PROBED = "x"
_FIRST, _LAST = "<start>", "<end>"
_TOLD = {
    name: files("neuron_atlas.tasks.simulate")
    .joinpath("prompts", f"list-{name}.txt")
    .read_text("utf-8")
    .strip()
    for name in ("system", "told", "empty")
}


@dataclass(frozen=True)
class _Example:
    """A neuron whose activations are told from the token `told_from` on: so the model sees that a
    number may follow upon any run of tokens whose numbers are not told."""

    explanation: str
    tokens: tuple[str, ...]
    tens: tuple[int, ...]
    told_from: int


_EXAMPLES = (
    _Example(
        "words for animals, dogs above all",
        ("The", " old", " dog", " sleeps", ";", " a", " bird", " and", " two", " dogs", " wake"),
        (0, 0, 10, 1, 0, 0, 6, 0, 0, 10, 0),
        told_from=3,
    ),
    _Example(
        "the end of a sentence",
        (" It", " rains", ".", " We", " stay", " in", ",", " all", " day", "."),
        (0, 0, 9, 0, 0, 0, 2, 0, 0, 10),
        told_from=1,
    ),
)
MOST_EXAMPLES = len(_EXAMPLES)


@dataclass(frozen=True)
class Scale:
    """How numbers are written to a model. top: of the scale; placeholder: for those not told."""

    top: int = HIGHEST
    placeholder: str = PLACEHOLDERS[0]

    @property
    def numbers(self) -> frozenset[str]:
        """All numbers of the scale."""
        return frozenset(str(number) for number in range(self.top + 1))

    @property
    def label(self) -> str:
        """The estimator as rows name it."""
        return f"expected 0-{self.top}, {self.placeholder} where not told"


def wording() -> str:
    """Names the wording: a hash of the prompt files and of all that stands in the lists."""
    decisive = [_TOLD, PLACEHOLDERS, [repr(example) for example in _EXAMPLES], _FIRST, _LAST]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def list_tokens(
    tokens: Sequence[str], explanation: str, scale: Scale, examples: int
) -> list[dict[str, Any]]:
    """The messages, the last of which the model seems to have begun: the list of `tokens`, with no
    number told. An explanation without words says that nothing is known."""
    messages = [_system(scale)]
    for number, example in enumerate(_EXAMPLES[:examples], start=1):
        shown = [
            str(round(ten * scale.top / HIGHEST)) if place >= example.told_from else None
            for place, ten in enumerate(example.tens)
        ]
        listed = _list(example.tokens, shown, scale)
        messages += _turns(number, example.explanation, f"{listed}\n{_LAST}")
    return messages + _turns(examples + 1, explanation, _list(tokens, [None] * len(tokens), scale))


def count_places(tokens: Sequence[str], examples: int) -> int:
    """How many places for a number `list_tokens` has, the last of which are those of `tokens`."""
    return sum(len(example.tokens) for example in _EXAMPLES[:examples]) + len(tokens)


def list_numbers() -> list[dict[str, Any]]:
    """The messages from which `read_scale` sees how a model's tokenizer cuts numbers."""
    shown = [*(str(number) for number in range(HIGHEST + 1)), *PLACEHOLDERS]
    listed = _list([_PROBED] * len(shown), shown, Scale())
    return [_system(Scale()), *_turns(1, "", f"{listed}\n{_LAST}")]


def read_scale(places: Sequence[Odds]) -> Scale | None:
    """The scale for a model, from the first tokens of the numbers of `list_numbers`; None where
    its tokenizer does not keep them apart from the tab before them.

    Its top is that of `tasks.simulate.scale`: one pass over a prompt has no "1" behind which the
    "0" of a "10" could be asked for.
    """
    said = [place.token.strip() for place in places]
    if said[:HIGHEST] != [str(number) for number in range(HIGHEST)] or len(said) <= HIGHEST:
        return None
    top = top_by(said[HIGHEST])
    if top < HIGHEST and said[HIGHEST] != "1":
        return None
    apart = (name for name in PLACEHOLDERS if any(begins(one, name) for one in said[HIGHEST + 1 :]))
    placeholder = next(apart, None)
    return None if placeholder is None else Scale(top, placeholder)


def begins(token: str, placeholder: str) -> bool:
    """Whether a token is the first one of a placeholder."""
    said = token.strip()
    return bool(said) and placeholder.startswith(said)


def _system(scale: Scale) -> dict[str, Any]:
    told = Template(_TOLD["system"]).substitute(top=scale.top, unknown=scale.placeholder)
    return {"role": "system", "content": told}


def _turns(number: int, explanation: str, listed: str) -> list[dict[str, Any]]:
    template = Template(_TOLD["told" if explanation.strip() else "empty"])
    said = template.substitute(number=number, explanation=escape(explanation))
    return [{"role": "user", "content": said}, {"role": "assistant", "content": listed}]


def _list(tokens: Sequence[str], shown: Sequence[str | None], scale: Scale) -> str:
    lines = [
        f"{escape(token)}{TAB}{scale.placeholder if number is None else number}"
        for token, number in zip(tokens, shown, strict=True)
    ]
    return "\n".join([_FIRST, *lines])
