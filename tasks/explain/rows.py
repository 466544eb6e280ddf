"""Explanations as rows of the `explanations` artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from neuron_atlas.tasks.artifacts import EXPLANATIONS
from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.explain.explanation import Explanation


def explanation_rows(
    explainer: str, evidence: Sequence[Evidence], explanations: Sequence[Explanation]
) -> pa.Table:
    """One row a neuron, in order.

    Raises ValueError where an explainer saw a sample that is held out from it.
    """
    for seen, explanation in zip(evidence, explanations, strict=True):
        held_out = {*seen.split.calibration, *seen.split.scorer}
        if leaked := held_out.intersection(explanation.exemplar_ids):
            raise ValueError(
                f"{explainer} was shown sample {min(leaked)} of neuron {seen.layer}:{seen.neuron}, "
                "which is held out for its score"
            )
    rows = [
        {
            "layer": seen.layer,
            "neuron": seen.neuron,
            "explainer": explainer,
            "type": seen.type,
            "calibration_ids": seen.split.calibration,
            "scorer_ids": seen.split.scorer,
        }
        | asdict(explanation)
        for seen, explanation in zip(evidence, explanations, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=EXPLANATIONS.schema)
