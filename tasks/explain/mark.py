"""Write a neuron's activations into a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuron_atlas.tasks.evidence.evidence import to_levels
from neuron_atlas.tasks.models.content import escape

MARKED_FROM = 3
"""The lowest level that is marked: marks of weak tokens hide the strong ones."""


def mark_tokens(tokens: Sequence[str], activations: np.ndarray) -> str:
    """Return the text with each active token as `{{token}}(7)`.

    activations: [tokens], 0 to 10, rounded to integers. Tokens from level 3 are marked; if none
    reaches it, those with the highest level. All tokens are escaped (`escape`), so no text can look
    like a mark, and the marks can be parsed. Raises ValueError if tokens and activations differ in
    number.
    """
    levels = _levels(tokens, activations)
    lowest = _lowest_marked(levels)
    return "".join(
        f"{{{{{escape(token)}}}}}({level})" if level >= lowest else escape(token)
        for token, level in zip(tokens, levels, strict=True)
    )


def list_strongest(tokens: Sequence[str], activations: np.ndarray, count: int = 5) -> str:
    """Return the marked tokens with the highest levels, as `"red" (10), "circle" (7)`.

    Each token is listed once, without spaces around it, with its highest level; at most `count`, of
    equals the first in the text. Empty if no token is marked.
    """
    levels = _levels(tokens, activations)
    lowest = _lowest_marked(levels)
    highest: dict[str, int] = {}
    for token, level in zip(tokens, levels, strict=True):
        if level >= lowest and token.strip():
            highest[token.strip()] = max(level, highest.get(token.strip(), 0))
    strongest = sorted(highest.items(), key=lambda pair: -pair[1])[:count]
    return ", ".join(f'"{escape(token)}" ({level})' for token, level in strongest)


def _levels(tokens: Sequence[str], activations: np.ndarray) -> list[int]:
    if len(tokens) != len(activations):
        raise ValueError(f"{len(tokens)} tokens with {len(activations)} activations")
    return [int(level) for level in to_levels(activations)]


def _lowest_marked(levels: Sequence[int]) -> int:
    return max(1, min(MARKED_FROM, max(levels, default=0)))
