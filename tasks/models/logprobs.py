"""Extract the log probabilities that a request needs from a reply.

A reply lists about twenty alternatives for every token. The extract is stored with the answer, so
it must be small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_DIGITS = 4
"""Decimal places of a stored log probability: a relative error of the probability below 1e-4."""
_LEAST = -14.0
"""Log probabilities below this are dropped: a probability of about one in a million."""


@dataclass(frozen=True)
class TokenLogprobs:
    """Alternatives of one token of an answer or a prompt, with their log probabilities.

    start: index of the token's first character in the answer, or the token's index in the prompt.
    token: the text of the token. options: (text, natural log of its probability) of the kept
    alternatives, which may include the token itself.
    """

    start: int
    token: str
    options: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ExtractOutputLogprobs:
    """A `Request.extract`: keeps the alternatives of each answer token that are in `among`,
    ignoring surrounding spaces. Drops tokens without such an alternative."""

    among: frozenset[str]

    def __call__(self, body: Mapping[str, Any]) -> list[Any] | None:
        """Return `[start, token, [[text, log probability] ...]]` for each token of a completion;
        None if it has no log probabilities."""
        tokens = (body["choices"][0].get("logprobs") or {}).get("content")
        if tokens is None:
            return None
        kept: list[Any] = []
        text = bytearray()
        for one in tokens:
            options = self._options([*(one.get("top_logprobs") or ()), one])
            if options:
                start = len(text.decode("utf-8", "ignore"))
                kept.append([start, one["token"], options])
            # Bytes, because one character may be split over two tokens.
            text += bytes(one["bytes"]) if one.get("bytes") else one["token"].encode()
        return kept

    def _options(self, alternatives: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
        # The sampled token may be listed twice: among the most likely ones, and at the end.
        found = {
            one["token"]: round(float(one["logprob"]), _DIGITS)
            for one in alternatives
            if one["token"].strip() in self.among and one["logprob"] >= _LEAST
        }
        return [[text, logprob] for text, logprob in found.items()]


EXTRACT_NUMBERS = ExtractOutputLogprobs(frozenset(str(number) for number in range(11)))
"""Keeps the numbers 0 to 10. All batch answers use it, since the `extract` of a request is not
stored with its batch."""


def read_token_logprobs(kept: Any) -> list[TokenLogprobs] | None:
    """Parse the log probabilities of `ExtractOutputLogprobs` or `ExtractPromptLogprobs`, stored as
    `Answer.kept`; None stays None."""
    if kept is None:
        return None
    return [
        TokenLogprobs(start, token, tuple((text, logprob) for text, logprob in options))
        for start, token, options in kept
    ]


@dataclass(frozen=True)
class ExtractPromptLogprobs:
    """A `Request.extract`: keeps each prompt token that follows a token ending in `behind`, with
    those of its alternatives that are in `among`, ignoring surrounding spaces."""

    behind: str
    among: frozenset[str]

    def __call__(self, body: Mapping[str, Any]) -> list[Any] | None:
        """Return `[index, token, [[text, log probability] ...]]` for each kept token of the prompt;
        None if the completion has no log probabilities of the prompt.

        vLLM returns them next to the choices: `prompt_token_ids`, and `prompt_logprobs`, which maps
        token ids to alternatives for each token but the first. The prompt's token is one of them.
        """
        logprobs, ids = body.get("prompt_logprobs"), body.get("prompt_token_ids")
        if logprobs is None or ids is None:
            return None
        kept: list[Any] = []
        before = ""
        for index, (alternatives, own) in enumerate(zip(logprobs, ids, strict=True)):
            token = "" if alternatives is None else _text_of(alternatives[str(own)])
            if before.endswith(self.behind):
                kept.append([index, token, self._options(alternatives.values())])
            before = token
        return kept

    def _options(self, alternatives: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
        # Two tokens may be the same number, with and without a leading space.
        return [
            [_text_of(one), round(float(one["logprob"]), _DIGITS)]
            for one in alternatives
            if _text_of(one).strip() in self.among
        ]


def _text_of(alternative: Mapping[str, Any]) -> str:
    return alternative.get("decoded_token") or ""
