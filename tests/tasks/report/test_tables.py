import polars as pl
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import SCORES
from neuron_atlas.tasks.report.tables import (
    failures_by_reason,
    failures_by_status,
    over_all_tokens,
    scores_overview,
    summarize_run,
    types_by_layer,
    without_absent_levels,
    write_tables,
)
from tests.tasks.report.synthetic import aggregates, every_type, neuron_types, scores

SCORED = scores(
    {"layer": 0, "neuron": 0, "correlation": 0.2, "control_other": 0.3},
    {"layer": 0, "neuron": 1, "correlation": 0.4, "control_other": 0.1},
    {"layer": 0, "neuron": 2, "correlation": 0.9, "control_other": 0.2},
    {"layer": 0, "neuron": 3, "status": "no_variance", "reason": "constant"},
    {"layer": 0, "neuron": 4, "type": "text", "status": "no_explanation", "reason": "none"},
    {"layer": 0, "neuron": 5, "correlation": float("nan"), "type": "text", "status": "no_variance",
     "reason": "constant"},
)  # fmt: skip


def outcomes(**tables):
    return {
        name: pa.table({"status": [s for s, _ in rows], "reason": [r for _, r in rows]})
        for name, rows in tables.items()
    }


def test_types_are_counted_by_layer_and_in_all():
    table = types_by_layer(
        neuron_types(
            {"layer": 2, "neuron": 0, "type": "visual"},
            {"layer": 2, "neuron": 1, "type": "visual"},
            {"layer": 2, "neuron": 2, "type": "unknown"},
            {"layer": 0, "neuron": 0, "type": "multi-modal"},
        )
    )
    assert table["layer"].to_list() == [0, 2, None]
    assert table["neurons"].to_list() == [1, 3, 4]
    assert table["visual"].to_list() == [0, 2, 2]
    assert table["multi-modal share"].to_list() == [1, 0, 0.25]
    assert table["visual share"].to_list() == pytest.approx([0, 2 / 3, 0.5])


def test_only_rows_over_all_tokens_are_a_score_of_their_own():
    rows = scores(
        *(
            {"layer": 0, "neuron": 0, "tokens": tokens, "correlation": place / 10}
            for place, tokens in enumerate(("all", "visual", "text"), start=1)
        )
    )
    assert over_all_tokens(rows)["correlation"].to_pylist() == pytest.approx([0.1])


def test_the_overview_has_all_neurons_then_types_then_layers_of_each_explainer():
    rows = scores_overview(
        aggregates(
            {"by": "layer", "group": "10"},
            {"by": "layer", "group": "9"},
            {"by": "type", "group": "text"},
            {"by": "type", "group": "visual", "mean": 0.7},
            {"by": "all"},
            {"by": "all", "tokens": "text", "mean": 0.9},
            {"by": "all", "explainer": "another"},
        )
    )
    assert [(row["explainer"], row["by"], row["group"]) for row in rows] == [
        ("another", "all", ""),
        ("dissect", "all", ""),
        ("dissect", "type", "visual"),
        ("dissect", "type", "text"),
        ("dissect", "layer", "9"),
        ("dissect", "layer", "10"),
    ]
    assert rows[1]["margin"]["mean"] == 0.5
    assert rows[2]["correlation"]["mean"] == 0.7
    assert rows[1]["beats_control"]["max_q"] == 0.05


def test_failures_are_counted_by_reason_and_ok_rows_are_not_failures():
    table = failures_by_reason(
        outcomes(
            samples=[("ok", "")] * 5
            + [("missing", "b.jpg")]
            + [("missing", "a.jpg")] * 2
            + [("oversized", "c")],
            explanations=[("ok", "")],
            scores=[("no_variance", None)],
        )
    )
    assert table.rows() == [
        ("samples", "missing", "a.jpg", 2, 9),
        ("samples", "missing", "b.jpg", 1, 9),
        ("samples", "oversized", "c", 1, 9),
        ("scores", "no_variance", "", 1, 1),
    ]


def test_a_level_that_an_explanation_does_not_have_is_no_failure():
    rows = pa.table(
        {
            "explanation": ["own", "other", "broader", "narrower", "broader"],
            "status": ["ok", "no_control", "no_control", "no_control", "ok"],
        }
    )
    kept = without_absent_levels(rows).to_pylist()
    assert [row["explanation"] for row in kept] == ["own", "other", "broader"]


def test_a_table_of_counts_stands_for_as_many_rows():
    counts = {
        "status": ["nonfinite", "nonfinite", "ok"],
        "reason": ["layer 1: infinite or NaN", "layer 2: infinite or NaN", ""],
        "count": [10**10, 5, 10**11],
    }
    (row,) = failures_by_status({"activations": pa.table(counts)}).to_dicts()
    assert (row["table"], row["status"], row["reasons"]) == ("activations", "nonfinite", 2)
    assert (row["count"], row["of"]) == (10**10 + 5, 11 * 10**10 + 5)


def test_many_reasons_are_gathered_under_their_status():
    rows = [("missing", f"{i}.jpg") for i in range(50)] + [("missing", "7.jpg")]
    table = failures_by_status(outcomes(samples=rows))
    assert table.to_dicts() == [
        {"table": "samples", "status": "missing", "count": 51, "of": 51, "reasons": 50,
         "first_reason": "7.jpg"}
    ]  # fmt: skip


def test_the_closing_summary():
    summary = summarize_run(
        every_type(per_type=2, layers=1),
        SCORED,
        aggregates(
            {"n": 40, "mean": 0.25},
            {"n": 10, "mean": 0.5, "explainer": "another"},
            {"n": 30, "mean": 1.0, "tokens": "text"},
            {"n": 20, "mean": 1.0, "by": "layer", "group": "0"},
        ),
        outcomes(samples=[("missing", "x")], scores=[("no_variance", ""), ("no_variance", "y")]),
    )
    assert summary.neurons == {"visual": 2, "text": 2, "multi-modal": 2, "unknown": 2}
    assert summary.n_scored == 3
    assert summary.mean_score == pytest.approx(0.5)
    assert summary.mean_control == pytest.approx(0.2)
    assert summary.strongest_control == "control_other"
    assert sum(row["n"] for row in summary.by_explainer) == 3
    names = [(row["explainer"], row["simulator"]) for row in summary.by_explainer]
    assert names == sorted(set(names))
    assert summary.mean_margin == pytest.approx(0.3)
    assert (summary.n_tested, summary.n_beat_control, summary.level) == (50, 15, 0.05)
    assert list(summary.failures.items()) == [
        (("scores", "no_variance"), 2),
        (("samples", "missing"), 1),
    ]


def test_the_control_of_a_summary_is_the_strongest_one_and_is_named():
    scored = scores(
        {"layer": 0, "neuron": 0, "correlation": 0.3, "control_other": 0.3, "control_blind": 0.4},
        {"layer": 0, "neuron": 1, "correlation": 0.3, "control_other": 0.1, "control_blind": 0.5},
        {"layer": 0, "neuron": 2, "correlation": 0.1, "control_other": 0.2, "explainer": "other"},
    )
    summary = summarize_run(neuron_types(), scored, aggregates(), {})
    assert summary.strongest_control == "control_blind"
    assert summary.mean_control == pytest.approx(0.45)
    assert summary.mean_controls == pytest.approx(
        {"control_other": 0.2, "control_empty": None, "control_blind": 0.45}
    )
    named = {row["explainer"]: row["strongest_control"] for row in summary.by_explainer}
    assert named == {"dissect": "control_blind", "other": "control_other"}
    assert [row["control"] for row in summary.by_explainer] == pytest.approx([0.45, 0.2])


def test_an_empty_run_is_summarised_without_numbers():
    summary = summarize_run(neuron_types(), SCORES.schema.empty_table(), aggregates(), {})
    assert set(summary.neurons.values()) == {0}
    assert summary.mean_score is None
    assert summary.mean_margin is None
    assert (summary.n_tested, summary.n_beat_control, summary.level) == (0, 0, None)
    assert summary.mean_control is None
    assert summary.by_explainer == []
    assert summary.failures == {}


def test_tables_are_saved_even_when_empty(tmp_path):
    paths = write_tables(tmp_path / "tables", neuron_types(), aggregates(), {})
    assert [path.name for path in paths] == [
        "types_by_layer.csv",
        "score_aggregates.csv",
        "failures_by_reason.csv",
    ]
    assert [pl.read_csv(path).height for path in paths] == [0, 0, 0]
    paths = write_tables(tmp_path / "tables", every_type(), aggregates({}), {"scores": SCORED})
    assert [pl.read_csv(path).height for path in paths] == [3, 19, 2]
