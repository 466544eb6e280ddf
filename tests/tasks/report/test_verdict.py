"""The verdict on a score, at the borders of its rule, and how it is said."""

import pyarrow as pa
import pytest

from neuron_atlas.tasks.report.verdict import (
    MEANINGS,
    VERDICTS,
    count_verdicts,
    false_discovery_level,
    judge_score,
)
from tests.tasks.report.synthetic import aggregates, scores

LEVEL = 0.05
CLEAR = {
    "status": "ok",
    "correlation": 0.62,
    "control_other": 0.1,
    "control_empty": 0.31,
    "control_blind": -0.2,
    "margin": 0.31,
    "margin_low": 0.22,
    "margin_high": 0.4,
    "q": 0.003,
}


def word(level=LEVEL, **changes):
    verdict = judge_score(CLEAR | changes, level)
    return verdict and verdict.word


def test_a_verdict_gives_the_numbers_behind_it_and_names_the_best_control():
    verdict = judge_score(CLEAR, LEVEL)
    assert verdict is not None
    assert verdict.sentence == (
        "clear: 0.62, 0.31 above the best control, an explanation without words (0.22 to 0.40), "
        "q = 0.003"
    )


def test_clear_wants_a_q_of_at_most_the_level():
    assert word(q=LEVEL) == "clear"
    assert word(q=LEVEL + 1e-9) == "weak"
    assert word(q=None) == "weak"
    assert word(q=float("nan")) == "weak"
    assert word(level=None) == "weak"


def test_clear_wants_a_margin_whose_lower_end_is_above_zero():
    assert word(margin_low=1e-9) == "clear"
    assert word(margin_low=0.0) == "weak"
    assert word(margin_low=-0.1) == "weak"
    assert word(margin_low=None) == "weak"


def test_a_margin_of_zero_or_less_is_none_whatever_q_says():
    assert word(margin=1e-9) == "clear"
    assert word(margin=1e-9, q=0.9) == "weak"
    assert word(margin=0.0) == "none"
    assert word(margin=-1e-9, q=0.0) == "none"


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "no_variance"},
        {"status": "no_control"},
        {"correlation": None},
        {"correlation": float("nan")},
        {"margin": None},
        {"margin": float("nan")},
    ],
)
def test_what_was_not_scored_has_no_verdict(changes):
    assert judge_score(CLEAR | changes, LEVEL) is None


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        (
            {"control_other": 0.4, "margin": 0.22, "q": 0.0},
            "0.62, 0.22 above the best control, another neuron\N{RIGHT SINGLE QUOTATION MARK}s "
            "explanation (0.22 to 0.40), q < 0.001",
        ),
        (
            {"control_blind": 0.7, "margin": -0.08, "margin_low": -0.1, "margin_high": 0.02},
            "0.62, 0.08 below the best control, a prediction without an explanation "
            "(margin \N{MINUS SIGN}0.10 to 0.02), q = 0.003",
        ),
        (
            {"control_other": -0.1, "control_empty": None, "margin": 0.62, "q": None},
            "0.62, 0.62 above 0, which no control exceeds (0.22 to 0.40), not tested",
        ),
        (
            {"margin": 0.0, "margin_low": None},
            "0.62, level with the best control, an explanation without words, q = 0.003",
        ),
    ],
)
def test_the_numbers_say_on_which_side_of_which_control_the_score_lies(changes, numbers):
    verdict = judge_score(CLEAR | changes, LEVEL)
    assert verdict is not None
    assert verdict.numbers == numbers


def test_verdicts_are_counted_for_each_explainer_and_simulator():
    row = {"layer": 0, "control_other": 0.1, "margin_low": 0.1, "q": 0.01}
    table = scores(
        *(row | {"neuron": neuron, "correlation": 0.5} for neuron in range(3)),
        row | {"neuron": 3, "correlation": 0.5, "q": 0.5},
        row | {"neuron": 4, "correlation": 0.0},
        row | {"neuron": 5, "correlation": None, "status": "no_variance"},
        row | {"neuron": 0, "correlation": 0.5, "simulator": "chat", "margin_low": -0.1},
    )
    counted = count_verdicts(table, LEVEL)
    assert [list(one.values()) for one in counted] == [
        ["dissect", "concept", 3, 1, 1, 1],
        ["dissect", "chat", 0, 1, 0, 0],
    ]
    assert list(counted[0]) == ["explainer", "simulator", *VERDICTS, "unscored"]
    assert tuple(MEANINGS) == VERDICTS


def test_the_level_is_that_of_the_run():
    assert false_discovery_level(aggregates({})) == 0.05
    assert false_discovery_level(aggregates()) is None
    assert false_discovery_level(pa.table({"max_q": pa.array([None], pa.float64())})) is None
