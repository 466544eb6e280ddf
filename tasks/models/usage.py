"""Check the tokens that a reply says it used: they decide what a run has spent."""

from __future__ import annotations

import math
from typing import Any

_MOST_TOKENS = 20_000_000
"""No model has a context as long as this."""
_MOST_TIMES = 1000
"""A reply that states more than so many times the reserved tokens is wrong, not expensive."""
_NAMES = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))


def read_usage(usage: Any) -> tuple[int, int, str]:
    """Return the tokens of the prompt and of the answer, and what is wrong with them, or "".

    Both are 0 if the reply does not state them, or not plausibly.
    """
    if not isinstance(usage, dict):
        return 0, 0, ""
    stated = [next((usage[name] for name in names if name in usage), None) for names in _NAMES]
    if all(value is None for value in stated):
        return 0, 0, ""
    tokens = [_whole(value) for value in stated]
    if any(value is None or not is_plausible(value) for value in tokens):
        shown = ", ".join(
            f"{names[0]} {str(value)[:40]}" for names, value in zip(_NAMES, stated, strict=True)
        )
        return 0, 0, f"the reply states {shown}"
    tokens_in, tokens_out = (value or 0 for value in tokens)
    return tokens_in, tokens_out, ""


def is_plausible(tokens: Any) -> bool:
    """Return whether this can be the number of tokens of a prompt or an answer."""
    return isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= _MOST_TOKENS


def is_absurd(used: float, reserved: float) -> bool:
    """Return whether a reply states so much more than was reserved that it must be wrong."""
    return used > _MOST_TIMES * max(reserved, 1e-12)


def _whole(value: Any) -> int | None:
    """Return a number as an integer; 0 for None. None if it is not a whole number."""
    if value is None:
        return 0
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value)
