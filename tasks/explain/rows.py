"""Convert explanations to rows of the `explanations` and `meaning_explanations` artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from neuron_atlas.tasks.artifacts import EXPLANATIONS, MEANING_EXPLANATIONS
from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.evidence.meanings import MeaningEvidence
from neuron_atlas.tasks.explain.explanation import Explanation


def explanation_rows(
    explainer: str, evidence: Sequence[Evidence], explanations: Sequence[Explanation]
) -> pa.Table:
    """Return one row for each neuron, in order.

    Raises ValueError if an explainer saw a sample that is held out from it.
    """
    for neuron, explanation in zip(evidence, explanations, strict=True):
        held_out = {*neuron.split.calibration, *neuron.split.scorer}
        if leaked := held_out.intersection(explanation.exemplar_ids):
            raise ValueError(
                f"{explainer} saw sample {min(leaked)} of neuron "
                f"{neuron.layer}:{neuron.neuron}, "
                "which is held out for its score"
            )
    rows = [
        {
            "layer": neuron.layer,
            "neuron": neuron.neuron,
            "explainer": explainer,
            "type": neuron.type,
            "calibration_ids": neuron.split.calibration,
            "scorer_ids": neuron.split.scorer,
        }
        | asdict(explanation)
        for neuron, explanation in zip(evidence, explanations, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=EXPLANATIONS.schema)


def meaning_rows(
    explainer: str, meanings: Sequence[MeaningEvidence], explanations: Sequence[Explanation]
) -> pa.Table:
    """Return one row for each meaning, in order. Raises ValueError as `explanation_rows` does."""
    table = explanation_rows(explainer, [one.evidence for one in meanings], explanations)
    for name in ("meaning", "n_exemplars"):
        field = MEANING_EXPLANATIONS.schema.field(name)
        values = pa.array([getattr(one, name) for one in meanings], field.type)
        table = table.append_column(field, values)
    return table
