"""The scale that a model writes activations on, which its tokenizer decides."""

from __future__ import annotations

HIGHEST = 10
"""The top of the scale where nothing is against it."""


def top_by(ten: str) -> int:
    """The top of a scale whose numbers are read as expected values, by the first token that a
    model's tokenizer makes of "10".

    The expected value weighs the numbers by their probabilities at one place. Where "10" is a
    token, its probability is among them, and the scale ends with it. Where it is "1" and "0", that
    of 10 lies behind a "1" that was not written, and more of it would lower the expected value: the
    scale then ends with 9. Scores do not depend on the unit of a prediction.
    """
    return HIGHEST if ten.strip() == str(HIGHEST) else HIGHEST - 1
