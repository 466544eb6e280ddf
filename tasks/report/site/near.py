"""Describe the nearest neurons of a neuron for the site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from neuron_atlas.tasks.report.site.script import round_significant

_MOST = 5
"""Nearest neurons that are shown, for image and text apart."""


def near_neurons(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[list[Any]]]:
    """Return the nearest neurons by role, each [layer, neuron, cosine], nearest first.

    rows: the neuron's rows of `neighbors`.
    """
    return {
        row["role"]: [
            [layer, neuron, round_significant(cosine, 3)]
            for layer, neuron, cosine in zip(
                row["layers"], row["neurons"], row["cosines"], strict=True
            )
        ][:_MOST]
        for row in rows
    }
