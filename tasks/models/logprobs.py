"""Log probabilities that come with an answer, cut down to what is asked of them.

A reply tells of some twenty alternatives at every token, most of which nobody reads; what is kept
is stored with the answer, so it has to be small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DIGITS = 4
"""Of a log probability, behind the point: its share is right to a ten-thousandth of itself."""
_LEAST = -14.0
"""Log probabilities below it are left out: a chance of one in a million."""


@dataclass(frozen=True)
class Odds:
    """What a model might have said at one token of its answer, or of its prompt.

    start: the character of the answer at which the token begins, or the token's place in the
    prompt. token: what it said, or was told. options: (text, natural log of its probability) of
    those alternatives that were kept, itself among them if it was.
    """

    start: int
    token: str
    options: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class KeepOutput:
    """A `Request.keep`: of the tokens of the answer, the alternatives that are one of `among`,
    spaces around them aside. Tokens without such an alternative are left out."""

    among: frozenset[str]

    def __call__(self, body: Mapping[str, Any]) -> list[Any] | None:
        """Of a chat completion, `[start, token, [[text, log probability] ...]]` for each token;
        None where it has no log probabilities."""
        told = (body["choices"][0].get("logprobs") or {}).get("content")
        if told is None:
            return None
        kept: list[Any] = []
        said = bytearray()
        for one in told:
            options = self._options([*(one.get("top_logprobs") or ()), one])
            if options:
                start = len(said.decode("utf-8", "ignore"))
                kept.append([start, one["token"], options])
            # A character may be cut in two by tokens, whose texts then do not say so.
            said += bytes(one["bytes"]) if one.get("bytes") else one["token"].encode()
        return kept

    def _options(self, told: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        # What was said may be the last of the likeliest, or come after them.
        found = {
            one["token"]: round(float(one["logprob"]), _DIGITS)
            for one in told
            if one["token"].strip() in self.among and one["logprob"] >= _LEAST
        }
        return [[text, logprob] for text, logprob in found.items()]


KEEP_NUMBERS = KeepOutput(frozenset(str(number) for number in range(11)))
"""Of an answer in numbers from 0 to 10. What a batch answers with log probabilities is cut down to
this, whatever its requests ask to keep: they are forgotten by the time it answers."""


def read_odds(kept: Any) -> list[Odds] | None:
    """What `KeepOutput` or `KeepPrompt` kept of an answer (`Answer.kept`), read; None where that is
    nothing."""
    if kept is None:
        return None
    return [
        Odds(start, token, tuple((text, logprob) for text, logprob in options))
        for start, token, options in kept
    ]


@dataclass(frozen=True)
class KeepPrompt:
    """A `Request.keep`: of the tokens of the prompt, those behind a token that ends in `behind`,
    each with those of its alternatives that are one of `among`, spaces around them aside."""

    behind: str
    among: frozenset[str]

    def __call__(self, body: Mapping[str, Any]) -> list[Any] | None:
        """Of a chat completion of vLLM's, `[place, token, [[text, log probability] ...]]` for each
        token; None where it does not tell of its prompt.

        It tells of it beside the choices: `prompt_token_ids`, and `prompt_logprobs` with an object
        for each token but the first, of alternatives by their id; the prompt's own is among them.
        """
        told, ids = body.get("prompt_logprobs"), body.get("prompt_token_ids")
        if told is None or ids is None:
            return None
        kept: list[Any] = []
        before = ""
        for place, (alternatives, own) in enumerate(zip(told, ids, strict=True)):
            token = "" if alternatives is None else _text_of(alternatives[str(own)])
            if before.endswith(self.behind):
                kept.append([place, token, self._options(alternatives.values())])
            before = token
        return kept

    def _options(self, told: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
        # Two tokens may be the same number, with a space before it and without.
        return [
            [_text_of(one), round(float(one["logprob"]), _DIGITS)]
            for one in told
            if _text_of(one).strip() in self.among
        ]


def _text_of(alternative: Mapping[str, Any]) -> str:
    return alternative.get("decoded_token") or ""
