"""Write a neuron's activations into a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuron_atlas.tasks.evidence.evidence import to_levels
from neuron_atlas.tasks.models.content import escape


def mark_tokens(tokens: Sequence[str], activations: np.ndarray) -> str:
    """Return the text with each active token as `{{token}}(7)`.

    activations: [tokens], 0 to 10, rounded to integers; tokens that round to 0 are not marked. All
    tokens are escaped (`escape`), so no text can look like a mark, and the marks can be parsed.
    Raises ValueError if tokens and activations differ in number.
    """
    if len(tokens) != len(activations):
        raise ValueError(f"{len(tokens)} tokens with {len(activations)} activations")
    return "".join(
        f"{{{{{escape(token)}}}}}({level})" if level else escape(token)
        for token, level in zip(tokens, to_levels(activations), strict=True)
    )
