"""Choose the scale on which a model writes activations, by its tokenizer."""

from __future__ import annotations

MAX_RATING = 10
"""The top of the scale, unless the tokenizer splits it."""


def top_of_scale(ten: str) -> int:
    """Return the top of a scale for expected values: 10, or 9 if the tokenizer splits "10".

    ten: the first token of "10". An expected value weighs numbers by their probabilities at one
    token. If "10" is one token, its probability is known there. If it is "1" and "0", its
    probability counts as that of 1 and would lower the expected value. So the scale ends at 9.
    Scores do not depend on the unit of a prediction.
    """
    return MAX_RATING if ten.strip() == str(MAX_RATING) else MAX_RATING - 1
