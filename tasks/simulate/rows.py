"""Simulate chosen neurons and lay the predictions out as rows of the `simulations` artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from tasks.artifacts import SIMULATIONS
from tasks.evidence import Evidence
from tasks.samples.catalog import Catalog
from tasks.simulate.control import Explained
from tasks.simulate.simulator import Prediction, Simulator

_NOTHING = Prediction(np.empty(0, np.float32), np.empty(0, np.float32))


def simulate_neurons(
    simulator: Simulator,
    explainer: str,
    evidence: Sequence[Evidence],
    explained: Mapping[tuple[int, int], Explained],
    controls: Mapping[tuple[int, int], Explained],
    catalog: Catalog,
) -> pa.Table:
    """`simulations` rows of the scorer's `evidence`: the neuron's own claim and the other's.

    As many random samples as exemplars are used, or all there are. A neuron without an
    explanation or a control gets one row that says so.
    """
    rows: list[dict] = []
    for neuron in evidence:
        key = (neuron.layer, neuron.neuron)
        drawn = [("exemplar", seen.sample_id) for seen in neuron.exemplars]
        drawn += [("random", seen.sample_id) for seen in neuron.random[: len(drawn)]]
        common = {"layer": neuron.layer, "neuron": neuron.neuron, "explainer": explainer}
        common |= {"simulator": simulator.name}
        own = explained.get(key)
        if own is None:
            reason = "the neuron has no explanation"
            rows.append(_absent(common, "own", "no_explanation", reason))
            continue
        if not drawn:
            rows.append(_absent(common, "own", "no_samples", "no sample was held out"))
            continue
        rows += _predicted(common, "own", own, drawn, simulator, catalog)
        other = controls.get(key)
        if other is None:
            reason = "no other neuron has a different explanation"
            rows.append(_absent(common, "other", "no_control", reason))
        else:
            rows += _predicted(common, "other", other, drawn, simulator, catalog)
    return pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)


def _predicted(
    common: dict,
    claim: str,
    explained: Explained,
    drawn: Sequence[tuple[str, int]],
    simulator: Simulator,
    catalog: Catalog,
) -> list[dict]:
    sample_ids = [sample_id for _, sample_id in drawn]
    predictions = simulator.simulate(explained.text, sample_ids, catalog)
    return [
        common
        | {"claim": claim, "claim_layer": explained.layer, "claim_neuron": explained.neuron}
        | {"sample_id": sample_id, "draw": draw}
        | _trace(prediction)
        for (draw, sample_id), prediction in zip(drawn, predictions, strict=True)
    ]


def _absent(common: dict, claim: str, status: str, reason: str) -> dict:
    nobody = {"claim": claim, "claim_layer": -1, "claim_neuron": -1, "sample_id": -1, "draw": ""}
    return common | nobody | _trace(_NOTHING) | {"status": status, "reason": reason}


def _trace(prediction: Prediction) -> dict:
    return {
        "visual": prediction.visual.astype(np.float16),
        "text": prediction.text.astype(np.float16),
        "estimator": prediction.estimator,
        "status": prediction.status,
        "reason": prediction.reason,
    }
