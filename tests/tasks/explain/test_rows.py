import pytest

from neuron_atlas.tasks.artifacts import EXPLANATIONS, read_table, write_table
from neuron_atlas.tasks.evidence.evidence import Evidence, Split
from neuron_atlas.tasks.explain.explanation import Explanation
from neuron_atlas.tasks.explain.rows import explanation_rows

SPLIT = Split(explainer=(1, 2, 3), calibration=(4,), scorer=(5, 6))
NEURON = Evidence(2, 7, "visual", 1.0, (), (), SPLIT)


def test_a_row_holds_what_was_said_what_was_seen_and_what_is_held_out(tmp_path):
    said = Explanation(
        "Red things.",
        evidence_for="most samples",
        evidence_against="the last",
        confidence=0.75,
        exemplar_ids=(3, 1),
    )
    table = explanation_rows("mine", [NEURON], [said])
    write_table(table, EXPLANATIONS, tmp_path / "rows")
    (row,) = read_table(tmp_path / "rows", EXPLANATIONS).to_pylist()
    assert (row["layer"], row["neuron"], row["explainer"], row["type"]) == (2, 7, "mine", "visual")
    assert (row["text"], row["evidence_for"], row["evidence_against"], row["confidence"]) == (
        "Red things.",
        "most samples",
        "the last",
        0.75,
    )
    assert (row["exemplar_ids"], row["calibration_ids"], row["scorer_ids"]) == ([3, 1], [4], [5, 6])


@pytest.mark.parametrize("leaked", [4, 6])
def test_an_explainer_that_saw_what_is_held_out_is_refused(leaked):
    said = Explanation("Red things.", exemplar_ids=(1, leaked))
    with pytest.raises(ValueError, match=f"mine saw sample {leaked} of neuron 2:7"):
        explanation_rows("mine", [NEURON], [said])


def test_a_confidence_that_was_not_told_is_null():
    table = explanation_rows("mine", [NEURON], [Explanation("Red things.")])
    assert table["confidence"].to_pylist() == [None]
