from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from tasks.artifacts import SIMULATIONS, write_table
from tasks.evidence import Evidence, Excitation
from tasks.samples.catalog import Catalog
from tasks.simulate.control import Explained
from tasks.simulate.rows import simulate_neurons
from tasks.simulate.simulator import Prediction

NOTHING = np.empty(0, np.float32)
OWN = Explained(2, 5, "visual", "red things")
OTHER = Explained(3, 8, "visual", "blue things")


@dataclass
class Echo:
    """A simulator whose prediction is the sample_id and how long the explanation is."""

    name: str = "echo"
    asked: list[str] = field(default_factory=list)

    def simulate(
        self, explanation: str, sample_ids: Sequence[int], catalog: Catalog
    ) -> list[Prediction]:
        self.asked.append(explanation)
        return [
            Prediction(
                visual=np.full(2, number / 7, np.float32),
                text=np.full(1, len(explanation), np.float32),
                estimator="echoed",
                status="failed" if number == 3 else "ok",
                reason="it was number 3" if number == 3 else "",
            )
            for number in sample_ids
        ]


def evidence(exemplars: Sequence[int], random: Sequence[int], neuron: int = 5) -> Evidence:
    drawn = [
        [Excitation(number, NOTHING, NOTHING) for number in ids] for ids in (exemplars, random)
    ]
    return Evidence(2, neuron, "visual", 1.0, tuple(drawn[0]), tuple(drawn[1]))


def rows(
    seen: Evidence, own: Explained | None = OWN, other: Explained | None = OTHER
) -> list[dict]:
    key = (seen.layer, seen.neuron)
    table = simulate_neurons(
        Echo(),
        "dissect",
        [seen],
        {key: own} if own else {},
        {key: other} if other else {},
        Catalog({}),
    )
    assert table.schema.equals(SIMULATIONS.schema)
    return table.to_pylist()


def test_the_neurons_own_claim_and_anothers_are_simulated_on_the_same_samples():
    table = rows(evidence([4, 1], [9, 6]))
    assert [(row["claim"], row["sample_id"], row["draw"]) for row in table] == [
        (claim, *drawn)
        for claim in ("own", "other")
        for drawn in ((4, "exemplar"), (1, "exemplar"), (9, "random"), (6, "random"))
    ]
    claims = {(row["claim"], row["claim_layer"], row["claim_neuron"]) for row in table}
    assert claims == {("own", 2, 5), ("other", 3, 8)}
    assert {row["text"][0] for row in table if row["claim"] == "own"} == {len(OWN.text)}
    assert {row["text"][0] for row in table if row["claim"] == "other"} == {len(OTHER.text)}


def test_as_many_random_samples_as_exemplars_are_used_or_all_there_are():
    for random, used in (([7, 8, 9, 10], [7, 8]), ([7], [7]), ([], [])):
        own = [row for row in rows(evidence([1, 2], random)) if row["claim"] == "own"]
        assert [row["sample_id"] for row in own if row["draw"] == "random"] == used


def test_predictions_are_kept_with_how_they_were_made(tmp_path):
    row = rows(evidence([4], []))[0]
    assert row["visual"] == [np.float16(4 / 7)] * 2
    assert (row["estimator"], row["status"], row["reason"]) == ("echoed", "ok", "")
    assert (row["explainer"], row["simulator"], row["layer"], row["neuron"]) == (
        "dissect",
        "echo",
        2,
        5,
    )
    table = pa.Table.from_pylist([row], schema=SIMULATIONS.schema)
    write_table(table, SIMULATIONS, tmp_path / "simulations")


def test_a_failed_prediction_is_a_row_with_its_reason():
    table = rows(evidence([4, 3], []))
    assert [(row["status"], row["reason"]) for row in table[:2]] == [
        ("ok", ""),
        ("failed", "it was number 3"),
    ]


@pytest.mark.parametrize(
    ("seen", "own", "status", "reason"),
    [
        (evidence([1, 2], [3]), None, "no_explanation", "the neuron has no explanation"),
        (evidence([], [3]), OWN, "no_samples", "no sample was held out"),
    ],
)
def test_a_neuron_that_cannot_be_simulated_is_one_row_that_says_why(seen, own, status, reason):
    (row,) = rows(seen, own=own)
    assert (row["claim"], row["status"], row["reason"]) == ("own", status, reason)
    assert (row["claim_layer"], row["claim_neuron"], row["sample_id"]) == (-1, -1, -1)
    assert row["visual"] == row["text"] == []


def test_a_neuron_without_a_control_is_simulated_and_says_so():
    table = rows(evidence([1, 2], []), other=None)
    assert [row["status"] for row in table] == ["ok", "ok", "no_control"]
    assert table[-1]["claim"] == "other"
    assert table[-1]["reason"] == "no other neuron has a different explanation"


def test_neurons_follow_each_other_in_the_order_of_the_evidence():
    seen = [evidence([1], [], neuron=6), evidence([2], [], neuron=5)]
    table = simulate_neurons(Echo(), "dissect", seen, {(2, 5): OWN, (2, 6): OTHER}, {}, Catalog({}))
    assert list(dict.fromkeys(table["neuron"].to_pylist())) == [6, 5]
