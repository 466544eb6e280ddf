"""Writes a neuron's activations into a text, where they can be read as text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuron_atlas.tasks.evidence.evidence import to_levels
from neuron_atlas.tasks.models.content import escape


def mark_tokens(tokens: Sequence[str], activations: np.ndarray) -> str:
    """The text with each active token as `{{token}}(7)`; activations [tokens], 0 to 10.

    The number is the activation rounded to an integer; tokens that round to 0 stay as they are, so
    that the text can still be read as text. Text and tokens are escaped (`escape`), so nothing in
    them can pass for a mark, and the marks can be read back.
    """
    if len(tokens) != len(activations):
        raise ValueError(f"{len(tokens)} tokens with {len(activations)} activations")
    return "".join(
        f"{{{{{escape(token)}}}}}({level})" if level else escape(token)
        for token, level in zip(tokens, to_levels(activations), strict=True)
    )
