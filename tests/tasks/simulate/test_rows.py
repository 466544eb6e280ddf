from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import SIMULATIONS, write_table
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.samples.catalog import Catalog
from neuron_atlas.tasks.simulate.control import ExplainedNeuron
from neuron_atlas.tasks.simulate.rows import simulate_neurons
from neuron_atlas.tasks.simulate.simulator import (
    Capabilities,
    Prediction,
    SimulationRequest,
    Simulator,
)

OWN = ExplainedNeuron(2, 5, "visual", "red things")
OTHER = ExplainedNeuron(3, 8, "visual", "blue things")
ODD = {
    3: {"status": "failed", "reason": "it was number 3"},
    13: {"visual": np.zeros(3, np.float32)},
    23: {"visual": np.array([0, np.nan], np.float32)},
    33: {"text": np.array([1e9], np.float32)},
}
"""What is odd about the predictions for some samples."""


@dataclass
class Echo(Simulator):
    """A simulator whose prediction is the sample_id and how long the explanation is."""

    name: str = "echo"
    asked: list[SimulationRequest] = field(default_factory=list)

    def simulate(
        self,
        requests: Sequence[SimulationRequest],
        catalog: Catalog,
        calls: CallOptions,
        capabilities: Capabilities | None = None,
    ) -> list[Prediction]:
        self.asked += requests
        return [
            Prediction(
                **{
                    "visual": np.full(2, asked.sample_id / 7, np.float32),
                    "text": np.full(1, len(asked.explanation), np.float32),
                    "estimator": "echoed",
                    "detected": float(asked.sample_id),
                }
                | ODD.get(asked.sample_id, {})
            )
            for asked in requests
        ]


def evidence(exemplars: Sequence[int], random: Sequence[int], neuron: int = 5) -> Evidence:
    drawn = [
        [ActivationRecord(number, np.ones(2, np.float32), np.ones(1, np.float32)) for number in ids]
        for ids in (exemplars, random)
    ]
    return Evidence(2, neuron, "visual", 1.0, tuple(drawn[0]), tuple(drawn[1]))


def rows(
    seen: Evidence,
    own: ExplainedNeuron | None = OWN,
    other: ExplainedNeuron | None = OTHER,
    aside: Sequence[Evidence] = (),
    simulator: Echo | None = None,
) -> list[dict]:
    key = (seen.layer, seen.neuron)
    table = simulate_neurons(
        simulator or Echo(),
        "dissect",
        [seen],
        aside,
        {key: own} if own else {},
        {key: other} if other else {},
        Catalog({}),
        CallOptions(),
    )
    assert table.schema.equals(SIMULATIONS.schema)
    return table.to_pylist()


def test_every_claim_is_simulated_on_the_same_samples():
    table = rows(evidence([4, 1], [9, 6]))
    assert [(row["explanation"], row["sample_id"], row["stratum"]) for row in table] == [
        (claim, *drawn)
        for claim in ("own", "other", "empty")
        for drawn in ((4, "exemplar"), (1, "exemplar"), (9, "random"), (6, "random"))
    ]
    claims = {
        (row["explanation"], row["explanation_layer"], row["explanation_neuron"]) for row in table
    }
    assert claims == {("own", 2, 5), ("other", 3, 8), ("empty", -1, -1)}
    said = {
        claim: {r["text"][0] for r in table if r["explanation"] == claim} for claim, _, _ in claims
    }
    assert said == {"own": {len(OWN.text)}, "other": {len(OTHER.text)}, "empty": {0}}
    assert {row["purpose"] for row in table} == {"scorer"}


def test_exemplars_and_random_samples_are_one_to_one():
    for exemplars, random in (([1, 2], [7, 8, 9, 10]), ([1, 2, 4, 5], [7, 8])):
        own = [row for row in rows(evidence(exemplars, random)) if row["explanation"] == "own"]
        assert [row["stratum"] for row in own] == ["exemplar", "exemplar", "random", "random"]


def test_the_own_claim_alone_is_simulated_on_the_calibration_samples_too():
    aside = [evidence([20], [21, 22]), evidence([24], [25], neuron=6)]
    table = rows(evidence([4], [9]), aside=aside)
    calibration = [row for row in table if row["purpose"] == "calibration"]
    assert [(row["explanation"], row["stratum"]) for row in calibration] == [
        ("own", "exemplar"),
        ("own", "random"),
    ]
    assert calibration[0]["sample_id"] == 20
    assert calibration[1]["sample_id"] in (21, 22)


def test_no_question_is_asked_twice_and_all_come_at_once():
    echo = Echo()
    seen = [evidence([4, 1], [9, 6], neuron=number) for number in (5, 6, 7)]
    same = {(2, number): OWN for number in (5, 6)} | {(2, 7): OTHER}
    table = simulate_neurons(echo, "dissect", seen, [], same, {}, Catalog({}), CallOptions())
    assert len(echo.asked) == len(set(echo.asked)) == 3 * 4
    empty = [row for row in table.to_pylist() if row["explanation"] == "empty"]
    assert len(empty) == 3 * 4
    assert all(row["status"] == "ok" for row in empty)


def test_predictions_are_kept_with_how_they_were_made(tmp_path):
    row = rows(evidence([4], [9]))[0]
    assert row["visual"] == [np.float16(4 / 7)] * 2
    assert (row["estimator"], row["status"], row["reason"]) == ("echoed", "ok", "")
    assert row["sample_prediction"] == 4
    assert (row["explainer"], row["simulator"], row["layer"], row["neuron"]) == (
        "dissect",
        "echo",
        2,
        5,
    )
    table = pa.Table.from_pylist([row], schema=SIMULATIONS.schema)
    write_table(table, SIMULATIONS, tmp_path / "simulations")


@pytest.mark.parametrize(
    ("sample_id", "status", "reason"),
    [
        (3, "failed", "it was number 3"),
        (13, "malformed", "3 predictions for 2 visual tokens"),
        (23, "malformed", "a visual prediction is not a number up to 65504"),
        (33, "malformed", "a text prediction is not a number up to 65504"),
    ],
)
def test_a_failed_prediction_is_a_row_with_its_reason_and_no_trace(sample_id, status, reason):
    fine, failed = rows(evidence([4, sample_id], [9, 6]))[:2]
    assert (fine["status"], fine["reason"]) == ("ok", "")
    assert (failed["status"], failed["reason"]) == (status, reason)
    assert failed["visual"] == failed["text"] == []


@pytest.mark.parametrize(
    ("seen", "own", "status", "reason"),
    [
        (evidence([1, 2], [3]), None, "no_explanation", "the neuron has no explanation"),
        (evidence([], [3]), OWN, "no_samples", "no exemplar was held out"),
        (evidence([3], []), OWN, "no_samples", "no random sample is left that is not an exemplar"),
    ],
)
def test_a_neuron_that_cannot_be_simulated_is_one_row_that_says_why(seen, own, status, reason):
    (row,) = rows(seen, own=own)
    assert (row["explanation"], row["status"]) == ("own", status)
    assert row["reason"].startswith(reason)
    assert (row["explanation_layer"], row["explanation_neuron"], row["sample_id"]) == (-1, -1, -1)
    assert row["visual"] == row["text"] == []


def test_a_neuron_without_a_control_is_simulated_and_says_so():
    table = rows(evidence([1], [2]), other=None)
    assert [row["status"] for row in table] == ["ok"] * 4 + ["no_control"]
    assert table[-1]["explanation"] == "other"
    assert table[-1]["reason"] == "no other neuron has a different explanation"


def test_neurons_follow_each_other_in_the_order_of_the_evidence():
    seen = [evidence([1], [7], neuron=6), evidence([2], [7], neuron=5)]
    said = {(2, 5): OWN, (2, 6): OTHER}
    table = simulate_neurons(Echo(), "dissect", seen, [], said, {}, Catalog({}), CallOptions())
    assert list(dict.fromkeys(table["neuron"].to_pylist())) == [6, 5]


def test_a_role_that_a_simulator_says_nothing_of_is_no_list_of_zeros(monkeypatch):
    monkeypatch.setitem(ODD, 4, {"text": None})
    table = rows(evidence([4], [6]))
    assert [row["status"] for row in table] == ["ok"] * len(table)
    assert {row["sample_id"]: row["text"] for row in table if row["explanation"] == "own"} == {
        4: None,
        6: [len(OWN.text)],
    }
    assert all(len(row["visual"]) == 2 for row in table)
