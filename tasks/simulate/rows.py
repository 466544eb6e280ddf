"""Simulate chosen neurons and lay the predictions out as rows of the `simulations` artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import SIMULATIONS
from neuron_atlas.tasks.evidence.evidence import Evidence, Excitation, one_to_one
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.control import ExplainedNeuron
from neuron_atlas.tasks.simulate.simulator import (
    NOTHING,
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

EMPTY = ""
"""The explanation without words: a control, the same for all neurons."""
_LARGEST = float(np.finfo(np.float16).max)
_Planned = tuple[dict, str, Excitation]
"""What is known of a row before its prediction, the explanation, and what truly happened."""


def simulate_neurons(
    simulator: Simulator,
    explainer: str,
    held_out: Sequence[Evidence],
    calibration: Sequence[Evidence],
    explained: Mapping[tuple[int, int], ExplainedNeuron],
    controls: Mapping[tuple[int, int], ExplainedNeuron],
    catalog: Catalog,
    calls: Calls,
    capabilities: Capabilities | None = None,
) -> pa.Table:
    """`simulations` rows of the neurons in `held_out`, the scorer's evidence.

    Exemplars and random samples, one to one, are the same for every claim: the neuron's own, the
    other neuron's and the empty one. The own claim is simulated on the `calibration` samples too.
    A neuron without an explanation, samples or a control gets one row that says so. Rows whose
    status is `pending` (see Simulator) belong to no table that may be written. capabilities: what
    the simulator's probe found.
    """
    aside = {(neuron.layer, neuron.neuron): neuron for neuron in calibration}
    rows: list[dict] = []
    planned: list[tuple[int, str, Excitation]] = []
    for neuron in held_out:
        key = (neuron.layer, neuron.neuron)
        common = {"layer": neuron.layer, "neuron": neuron.neuron, "explainer": explainer}
        common |= {"simulator": simulator.name}
        own, other = explained.get(key), controls.get(key)
        if own is None:
            reason = "the neuron has no explanation"
            rows.append(_absent(common, "own", "no_explanation", reason))
            continue
        if not one_to_one(neuron):
            rows.append(_absent(common, "own", "no_samples", _why_no_samples(neuron)))
            continue
        plan = _plan(common, "own", own, neuron, "scorer")
        if key in aside:
            plan += _plan(common, "own", own, aside[key], "calibration")
        if other is not None:
            plan += _plan(common, "other", other, neuron, "scorer")
        plan += _plan(common, "empty", None, neuron, "scorer")
        for row, explanation, truth in plan:
            planned.append((len(rows), explanation, truth))
            rows.append(row)
        if other is None:
            reason = "no other neuron has a different explanation"
            rows.append(_absent(common, "other", "no_control", reason))
    # Many claims are asked of the same sample, above all the empty one: each is asked once.
    asked = dict.fromkeys(SimulationRequest(said, truth.sample_id) for _, said, truth in planned)
    predictions = simulator.simulate(list(asked), catalog, calls, capabilities)
    answers = dict(zip(asked, predictions, strict=True))
    for place, said, truth in planned:
        rows[place] |= _trace(_checked(answers[SimulationRequest(said, truth.sample_id)], truth))
    return pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)


def _plan(
    common: dict, claim: str, explained: ExplainedNeuron | None, evidence: Evidence, purpose: str
) -> list[_Planned]:
    about = common | {
        "claim": claim,
        "claim_layer": explained.layer if explained else -1,
        "claim_neuron": explained.neuron if explained else -1,
        "purpose": purpose,
    }
    said = explained.text if explained else EMPTY
    return [
        (about | {"sample_id": seen.sample_id, "draw": draw}, said, seen)
        for draw, seen in one_to_one(evidence)
    ]


def _why_no_samples(neuron: Evidence) -> str:
    if not neuron.exemplars:
        return "no exemplar was held out"
    return (
        "no random sample is left beside the exemplars; a larger dataset, a smaller "
        "capture.top_n or more capture.random_samples leave some"
    )


def _checked(prediction: Prediction, truth: Excitation) -> Prediction:
    """The prediction, or `malformed` where it cannot be laid beside the real trace."""
    if prediction.status != "ok":
        return replace(prediction, visual=NOTHING.visual, text=NOTHING.text)
    for role in ("visual", "text"):
        values, tokens = getattr(prediction, role), len(getattr(truth, role))
        if values is None:
            continue
        if len(values) != tokens:
            reason = f"{len(values)} predictions for {tokens} {role} tokens"
            return replace(NOTHING, status="malformed", reason=reason)
        if not (np.abs(values) <= _LARGEST).all():  # NaN is not.
            reason = f"a {role} prediction is not a number up to {_LARGEST:.0f}"
            return replace(NOTHING, status="malformed", reason=reason)
    return prediction


def _absent(common: dict, claim: str, status: str, reason: str) -> dict:
    nobody = {"claim": claim, "claim_layer": -1, "claim_neuron": -1, "sample_id": -1, "draw": ""}
    outcome = {"purpose": "scorer", "status": status, "reason": reason}
    return common | nobody | _trace(NOTHING) | outcome


def _trace(prediction: Prediction) -> dict:
    return {
        "visual": _half(prediction.visual),
        "text": _half(prediction.text),
        "detected": prediction.detected,
        "estimator": prediction.estimator,
        "status": prediction.status,
        "reason": prediction.reason,
    }


def _half(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.astype(np.float16)
