"""Simulate neurons, and return the predictions as rows of the `simulations` artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from neuron_atlas.tasks.artifacts import SIMULATIONS
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Draw, Evidence, balanced_samples
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.control import ExplainedNeuron
from neuron_atlas.tasks.simulate.levels import Level
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
_NO_SAMPLE = ActivationRecord(-1, np.empty(0, np.float32), np.empty(0, np.float32))


@dataclass(frozen=True)
class _Block:
    """Consecutive rows: one claim about a neuron on some of its samples.

    explained: whose explanation it is; None for the empty one. drawn: the samples. absent: the
    outcome of a claim without samples, which is one row. wording: the words of a claim that is
    nobody's explanation.
    """

    neuron: Evidence
    claim: str
    explained: ExplainedNeuron | None = None
    purpose: str = "scorer"
    drawn: Sequence[tuple[Draw, ActivationRecord]] = ()
    absent: Prediction | None = None
    wording: str = ""

    @property
    def text(self) -> str:
        """The words that are simulated."""
        return self.wording or (self.explained.text if self.explained else EMPTY_EXPLANATION)


def simulate_claims(
    simulator: Simulator,
    claims: Sequence[tuple[str, Sequence[ActivationRecord]]],
    catalog: Catalog,
    calls: CallOptions,
    capabilities: Capabilities | None = None,
) -> list[list[Prediction]]:
    """Return the predictions of each explanation on its samples, in order.

    claims: explanations and samples. A prediction that does not fit its sample has the status
    `malformed`. The rest is as of `simulate_neurons`.
    """
    rows = [(text, real) for text, records in claims for real in records]
    outcomes, of_row = _predict(simulator, rows, catalog, calls, capabilities)
    found = iter(of_row.tolist())
    return [[outcomes[next(found)] for _ in records] for _, records in claims]


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
    levels: Mapping[tuple[int, int], Mapping[str, Level]] | None = None,
) -> pa.Table:
    """Return `simulations` rows of the neurons in `held_out`, the scorer's evidence.

    Each neuron has three claims: its own explanation, another neuron's and the empty one. All are
    simulated on the same samples: exemplars and random samples one to one, and the near misses of
    the own explanation. With `levels`, so are the own explanation one level broader and narrower.
    The own claim is also simulated on the `calibration` samples. A missing explanation, sample or
    control yields one row with that status. The caller must not write a
    table with rows of status `pending` (see `Simulator`).

    explained, controls: by (layer, neuron); controls from `other_neurons`. capabilities: result of
    the simulator's probe. Raises ProviderError and ModelError as `Simulator.simulate` does.
    """
    blocks = _plan(held_out, calibration, explained, controls, levels or {})
    rows = [(block.text, real) for block in blocks for _, real in block.drawn]
    outcomes, of_row = _predict(simulator, rows, catalog, calls, capabilities)
    is_absent = np.array([block.absent is not None for block in blocks], dtype=bool)
    lengths = np.array([max(1, len(block.drawn)) for block in blocks], dtype=np.int64)
    outcome = np.empty(lengths.sum(), np.int64)
    row_is_absent = np.repeat(is_absent, lengths)
    outcome[~row_is_absent] = of_row
    outcome[row_is_absent] = len(outcomes) + np.arange(is_absent.sum())
    outcomes += [block.absent for block in blocks if block.absent is not None]
    columns = _block_columns(blocks, lengths, explainer, simulator.name)
    columns |= _outcome_columns(outcomes, outcome)
    arrays = [columns[field.name].cast(field.type) for field in SIMULATIONS.schema]
    return pa.Table.from_arrays(arrays, schema=SIMULATIONS.schema)


def _predict(
    simulator: Simulator,
    rows: Sequence[tuple[str, ActivationRecord]],
    catalog: Catalog,
    calls: CallOptions,
    capabilities: Capabilities | None,
) -> tuple[list[Prediction], np.ndarray]:
    """Return the outcomes, and the position of each row's outcome in them. rows: explanation and
    sample of each."""
    # Neurons share samples and claims (above all the empty one), so requests are deduplicated.
    places: dict[tuple[str, int], int] = {}
    request_of_row = [places.setdefault((text, real.sample_id), len(places)) for text, real in rows]
    requests = [SimulationRequest(text, sample_id) for text, sample_id in places]
    predictions = simulator.simulate(requests, catalog, calls, capabilities)
    if len(predictions) != len(requests):
        raise ValueError(f"{len(predictions)} predictions for {len(requests)} requests")
    return _check(predictions, np.array(request_of_row, np.int64), [real for _, real in rows])


def _plan(
    held_out: Sequence[Evidence],
    calibration: Sequence[Evidence],
    explained: Mapping[tuple[int, int], ExplainedNeuron],
    controls: Mapping[tuple[int, int], ExplainedNeuron],
    levels: Mapping[tuple[int, int], Mapping[str, Level]],
) -> list[_Block]:
    """Return all blocks of rows, in order."""
    calibration_by_neuron = {(neuron.layer, neuron.neuron): neuron for neuron in calibration}
    blocks = []
    for neuron in held_out:
        key = (neuron.layer, neuron.neuron)
        own, other = explained.get(key), controls.get(key)
        if own is None:
            absent = replace(
                NO_PREDICTION, status="no_explanation", reason="the neuron has no explanation"
            )
            blocks.append(_Block(neuron, "own", absent=absent))
            continue
        drawn = balanced_samples(neuron)
        if not drawn:
            absent = replace(NO_PREDICTION, status="no_samples", reason=_why_no_samples(neuron))
            blocks.append(_Block(neuron, "own", absent=absent))
            continue
        drawn += [("near_miss", record) for record in neuron.near_misses]
        blocks.append(_Block(neuron, "own", own, drawn=drawn))
        aside = balanced_samples(calibration_by_neuron[key]) if key in calibration_by_neuron else []
        if aside:
            blocks.append(_Block(neuron, "own", own, "calibration", aside))
        if other is not None:
            blocks.append(_Block(neuron, "other", other, drawn=drawn))
        blocks.append(_Block(neuron, "empty", drawn=drawn))
        if other is None:
            reason = "no other neuron has a different explanation"
            absent = replace(NO_PREDICTION, status="no_control", reason=reason)
            blocks.append(_Block(neuron, "other", absent=absent))
        for claim, level in levels.get(key, {}).items():
            if level.text is None:
                absent = replace(NO_PREDICTION, status="no_control", reason=level.reason)
                blocks.append(_Block(neuron, claim, own, absent=absent))
            else:
                blocks.append(_Block(neuron, claim, own, drawn=drawn, wording=level.text))
    return blocks


def _why_no_samples(neuron: Evidence) -> str:
    if not neuron.exemplars:
        return "no exemplar was held out"
    return (
        "no random sample is left that is not an exemplar; use a larger dataset, a smaller "
        "capture.top_n or more evidence.random_samples"
    )


def _check(
    predictions: Sequence[Prediction], of_row: np.ndarray, real: Sequence[ActivationRecord]
) -> tuple[list[Prediction], np.ndarray]:
    """Return the outcomes, and the position of each row's outcome in them.

    of_row: position of each row's prediction in `predictions`, int64. real: each row's activations.
    A prediction that does not fit them gets the status `malformed`; one that failed is empty.
    """
    place: dict[int, int] = {}
    distinct = [place.setdefault(id(one), len(place)) for one in predictions]
    outcomes = list({id(one): one for one in predictions}.values())
    of_row = np.array(distinct, np.int64)[of_row]
    is_suspect = np.array([one.status != "ok" for one in outcomes], dtype=bool)
    fits = np.ones(len(of_row), dtype=bool)
    for role in ("visual", "text"):
        values = [getattr(one, role) for one in outcomes]
        lengths = np.array([-1 if one is None else len(one) for one in values], dtype=np.int64)
        tokens = np.array([len(getattr(one, role)) for one in real], dtype=np.int64)
        fits &= (lengths[of_row] < 0) | (lengths[of_row] == tokens)
        is_suspect |= ~_are_storable(values)
    for row in np.flatnonzero(is_suspect[of_row] | ~fits).tolist():
        outcomes.append(_checked(outcomes[of_row[row]], real[row]))
        of_row[row] = len(outcomes) - 1
    for number in np.flatnonzero(is_suspect).tolist():
        outcomes[number] = NO_PREDICTION  # No row has it any more.
    return outcomes, of_row


def _are_storable(values: Sequence[np.ndarray | None]) -> np.ndarray:
    """Return whether all numbers of each array are finite in float16; bool [arrays]."""
    lengths = np.array([0 if one is None else len(one) for one in values], dtype=np.int64)
    (filled,) = np.nonzero(lengths)
    storable = np.ones(len(values), dtype=bool)
    if len(filled):
        fine = np.abs(np.concatenate([one for one in values if one is not None])) <= _LARGEST
        storable[filled] = np.logical_and.reduceat(fine, (np.cumsum(lengths) - lengths)[filled])
    return storable


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


def _block_columns(
    blocks: Sequence[_Block], lengths: np.ndarray, explainer: str, simulator: str
) -> dict[str, pa.Array]:
    """Return the columns that say which claim was simulated on which sample."""
    drawn = [block.drawn or ((("", _NO_SAMPLE),)) for block in blocks]
    by_block = {
        "layer": [block.neuron.layer for block in blocks],
        "neuron": [block.neuron.neuron for block in blocks],
        "explainer": [explainer] * len(blocks),
        "simulator": [simulator] * len(blocks),
        "explanation": [block.claim for block in blocks],
        "explanation_layer": [block.explained.layer if block.explained else -1 for block in blocks],
        "explanation_neuron": [
            block.explained.neuron if block.explained else -1 for block in blocks
        ],
        "wording": [block.wording for block in blocks],
        "purpose": [block.purpose for block in blocks],
    }
    rows = pa.array(np.repeat(np.arange(len(blocks)), lengths))
    types = {field.name: field.type for field in SIMULATIONS.schema}
    columns = {name: pa.array(values, types[name]).take(rows) for name, values in by_block.items()}
    columns["sample_id"] = pa.array([real.sample_id for one in drawn for _, real in one])
    columns["stratum"] = pa.array([draw for one in drawn for draw, _ in one])
    return columns


def _outcome_columns(outcomes: Sequence[Prediction], of_row: np.ndarray) -> dict[str, pa.Array]:
    """Return the columns of the outcomes, one row for each of `of_row`."""
    rows = pa.array(of_row)
    types = {field.name: field.type for field in SIMULATIONS.schema}
    columns = {
        name: pa.array([getattr(one, name) for one in outcomes], types[name]).take(rows)
        for name in ("estimator", "omitted", "status", "reason")
    }
    strengths = pa.array([one.detected for one in outcomes], types["sample_prediction"])
    columns["sample_prediction"] = strengths.take(rows)
    for role in ("visual", "text"):
        columns[role] = _lists([getattr(one, role) for one in outcomes]).take(rows)
    return columns


def _lists(values: Sequence[np.ndarray | None]) -> pa.LargeListArray:
    """Return a list column of float16; None is null."""
    offsets = np.cumsum([0, *(0 if one is None else len(one) for one in values)])
    flat = np.concatenate([np.empty(0, np.float32), *(one for one in values if one is not None)])
    is_null = pa.array([one is None for one in values], pa.bool_())
    return pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), flat.astype(np.float16), mask=is_null
    )
