"""What the user should know about an answer, as one line."""

from __future__ import annotations

from neuron_atlas.tasks.models.answer import REASONING_TOO_LONG, Answer

_AFTER_TRUNCATED = 3
"""Answers that were cut off before the user is advised."""


def notice_of(answer: Answer, model: str, group: str) -> tuple[str, int]:
    """Return a line for the user about an answer, or "", and by how many such answers it is due.

    group: see `CallOptions`.
    """
    if answer.usage_note:
        return (
            f"{model}: the tokens in its replies cannot be right, so each such call counts at the "
            f"most that it can have cost ({answer.usage_note})"
        ), 1
    # An answer that only carries log probabilities of its prompt is cut off on purpose.
    if answer.status == "truncated" and not answer.kept:
        advice = f"raise {group}.max_tokens, such as {group}.max_tokens=8000"
        if answer.reason == REASONING_TOO_LONG:
            cause = "used up its answers with reasoning before it wrote any, and they are paid for"
            return f"{model} {cause}: {advice}", _AFTER_TRUNCATED
        return f"answers of {model} are cut off, and are paid for: {advice}", _AFTER_TRUNCATED
    return "", 1
