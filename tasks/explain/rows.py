"""Explanations as rows of the `explanations` artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from tasks.artifacts import EXPLANATIONS
from tasks.evidence import Evidence
from tasks.explain.explanation import Explanation


def explanation_rows(
    explainer: str, evidence: Sequence[Evidence], explanations: Sequence[Explanation]
) -> pa.Table:
    """One row a neuron, in order."""
    rows = [
        {
            "layer": seen.layer,
            "neuron": seen.neuron,
            "explainer": explainer,
            "type": seen.type,
        }
        | asdict(explanation)
        for seen, explanation in zip(evidence, explanations, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=EXPLANATIONS.schema)
