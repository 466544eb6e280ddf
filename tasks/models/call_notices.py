"""What the user should know about an answer, as one line."""

from __future__ import annotations

from neuron_atlas.tasks.models.answer import REASONING_TOO_LONG, Answer

_AFTER_TRUNCATED = 3
"""Answers that reasoning cut off before the user is advised."""


def notice_of(answer: Answer, model: str, group: str) -> tuple[str, int]:
    """Return a line for the user about an answer, or "", and by how many such answers it is due.

    group: see `CallOptions`.
    """
    if answer.usage_note:
        return (
            f"{model}: the tokens in its replies cannot be right, so each such call counts at the "
            f"most that it can have cost ({answer.usage_note})"
        ), 1
    if answer.reason == REASONING_TOO_LONG:
        return (
            f"{model} used up its answers with reasoning before it wrote any, and they are paid "
            f"for: raise {group}.max_tokens, such as {group}.max_tokens=8000"
        ), _AFTER_TRUNCATED
    return "", 1
