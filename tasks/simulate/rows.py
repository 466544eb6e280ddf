"""Simulate neurons, and return the predictions as rows of the `simulations` artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import SIMULATIONS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence, balanced_samples
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.control import ExplainedNeuron
from neuron_atlas.tasks.simulate.simulator import (
    NO_PREDICTION,
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

EMPTY_EXPLANATION = ""
"""The empty explanation: a control, the same for all neurons."""
_LARGEST = float(np.finfo(np.float16).max)
_PlannedRow = tuple[dict, str, ActivationRecord]
"""A row's columns without the prediction, the explanation, and the real activations."""


def simulate_neurons(
    simulator: Simulator,
    explainer: str,
    held_out: Sequence[Evidence],
    calibration: Sequence[Evidence],
    explained: Mapping[tuple[int, int], ExplainedNeuron],
    controls: Mapping[tuple[int, int], ExplainedNeuron],
    catalog: Catalog,
    calls: CallOptions,
    capabilities: Capabilities | None = None,
) -> pa.Table:
    """Return `simulations` rows of the neurons in `held_out`, the scorer's evidence.

    Each neuron has three claims: its own explanation, another neuron's and the empty one. All are
    simulated on the same samples, exemplars and random samples one to one; the own claim also on
    the `calibration` samples. A missing explanation, sample or control yields one row with that
    status. The caller must not write a table with rows of status `pending` (see `Simulator`).

    explained, controls: by (layer, neuron); controls from `other_neurons`. capabilities: result of
    the simulator's probe. Raises ProviderError and ModelError as `Simulator.simulate` does.
    """
    calibration_by_neuron = {(neuron.layer, neuron.neuron): neuron for neuron in calibration}
    rows: list[dict] = []
    planned: list[tuple[int, str, ActivationRecord]] = []
    for neuron in held_out:
        key = (neuron.layer, neuron.neuron)
        common = {"layer": neuron.layer, "neuron": neuron.neuron, "explainer": explainer}
        common |= {"simulator": simulator.name}
        own, other = explained.get(key), controls.get(key)
        if own is None:
            reason = "the neuron has no explanation"
            rows.append(_absent(common, "own", "no_explanation", reason))
            continue
        if not balanced_samples(neuron):
            rows.append(_absent(common, "own", "no_samples", _why_no_samples(neuron)))
            continue
        plan = _plan(common, "own", own, neuron, "scorer")
        if key in calibration_by_neuron:
            plan += _plan(common, "own", own, calibration_by_neuron[key], "calibration")
        if other is not None:
            plan += _plan(common, "other", other, neuron, "scorer")
        plan += _plan(common, "empty", None, neuron, "scorer")
        for row, explanation, real in plan:
            planned.append((len(rows), explanation, real))
            rows.append(row)
        if other is None:
            reason = "no other neuron has a different explanation"
            rows.append(_absent(common, "other", "no_control", reason))
    # Neurons share samples and claims (above all the empty one), so requests are deduplicated.
    requests = dict.fromkeys(SimulationRequest(text, real.sample_id) for _, text, real in planned)
    predictions = simulator.simulate(list(requests), catalog, calls, capabilities)
    by_request = dict(zip(requests, predictions, strict=True))
    for row_number, text, real in planned:
        request = SimulationRequest(text, real.sample_id)
        rows[row_number] |= _trace(_checked(by_request[request], real))
    return pa.Table.from_pylist(rows, schema=SIMULATIONS.schema)


def _plan(
    common: dict, claim: str, explained: ExplainedNeuron | None, evidence: Evidence, purpose: str
) -> list[_PlannedRow]:
    columns = common | {
        "explanation": claim,
        "explanation_layer": explained.layer if explained else -1,
        "explanation_neuron": explained.neuron if explained else -1,
        "purpose": purpose,
    }
    text = explained.text if explained else EMPTY_EXPLANATION
    return [
        (columns | {"sample_id": real.sample_id, "stratum": draw}, text, real)
        for draw, real in balanced_samples(evidence)
    ]


def _why_no_samples(neuron: Evidence) -> str:
    if not neuron.exemplars:
        return "no exemplar was held out"
    return (
        "no random sample is left that is not an exemplar; use a larger dataset, a smaller "
        "capture.top_n or more evidence.random_samples"
    )


def _checked(prediction: Prediction, real: ActivationRecord) -> Prediction:
    """Return the prediction; status `malformed` if it does not fit the real trace."""
    if prediction.status != "ok":
        return replace(prediction, visual=NO_PREDICTION.visual, text=NO_PREDICTION.text)
    for role in ("visual", "text"):
        values, tokens = getattr(prediction, role), len(getattr(real, role))
        if values is None:
            continue
        if len(values) != tokens:
            reason = f"{len(values)} predictions for {tokens} {role} tokens"
            return replace(NO_PREDICTION, status="malformed", reason=reason)
        if not (np.abs(values) <= _LARGEST).all():  # Also refuses NaN.
            reason = f"a {role} prediction is not a number up to {_LARGEST:.0f}"
            return replace(NO_PREDICTION, status="malformed", reason=reason)
    return prediction


def _absent(common: dict, claim: str, status: str, reason: str) -> dict:
    no_sample = {
        "explanation": claim,
        "explanation_layer": -1,
        "explanation_neuron": -1,
        "sample_id": -1,
        "stratum": "",
    }
    outcome = {"purpose": "scorer", "status": status, "reason": reason}
    return common | no_sample | _trace(NO_PREDICTION) | outcome


def _trace(prediction: Prediction) -> dict:
    return {
        "visual": _half(prediction.visual),
        "text": _half(prediction.text),
        "sample_prediction": prediction.detected,
        "estimator": prediction.estimator,
        "status": prediction.status,
        "reason": prediction.reason,
    }


def _half(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values.astype(np.float16)
