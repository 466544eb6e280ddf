"""Convert explanations to rows of the `explanations` and `meaning_explanations` artifacts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import pyarrow as pa

from neuron_atlas.tasks.artifacts import EXPLANATIONS, MEANING_EXPLANATIONS
from neuron_atlas.tasks.evidence.evidence import Evidence
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
    explainer: str,
    split: Sequence[tuple[int, Evidence]],
    explanations: Sequence[Explanation],
    members: Mapping[int, Mapping[int, Collection[int]]],
) -> pa.Table:
    """Return one row for each meaning, in order.

    split: number and evidence of each meaning. members: exemplars of each, by neuron and meaning.
    Raises ValueError as `explanation_rows` does.
    """
    table = explanation_rows(explainer, [one for _, one in split], explanations)
    columns = {
        "meaning": [meaning for meaning, _ in split],
        "n_exemplars": [len(members[one.neuron][meaning]) for meaning, one in split],
    }
    for name, values in columns.items():
        field = MEANING_EXPLANATIONS.schema.field(name)
        table = table.append_column(field, pa.array(values, field.type))
    return table
