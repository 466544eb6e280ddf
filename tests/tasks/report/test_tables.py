import polars as pl
import pyarrow as pa
import pytest

from tasks.artifacts import SCORES
from tasks.report.tables import (
    failures_by_reason,
    failures_by_status,
    scores_by_type,
    summarise,
    types_by_layer,
    write_tables,
)
from tests.tasks.report.synthetic import every_type, neuron_types, scores

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


def test_scores_are_summarised_over_ok_rows_only():
    visual, text = scores_by_type(SCORED).to_dicts()
    assert (visual["type"], visual["n"], visual["not_scored"]) == ("visual", 3, 1)
    assert visual["mean"] == pytest.approx(0.5)
    assert visual["median"] == pytest.approx(0.4)
    assert visual["control_mean"] == pytest.approx(0.2)
    assert visual["margin_mean"] == pytest.approx(0.3)
    assert visual["beats_control"] == pytest.approx(2 / 3)
    # No score is no number, least of all zero.
    assert (text["n"], text["not_scored"]) == (0, 2)
    assert [text[name] for name in ("mean", "median", "control_mean", "beats_control")] == [
        None
    ] * 4


def test_explainers_and_simulators_are_kept_apart():
    table = scores_by_type(
        pa.concat_tables(
            [SCORED, scores({"layer": 0, "neuron": 0, "correlation": 0.7, "explainer": "a"})]
        )
    )
    assert table["explainer"].to_list() == ["a", "dissect", "dissect"]
    assert table["beats_control"].to_list()[0] is None


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


def test_many_reasons_are_gathered_under_their_status():
    rows = [("missing", f"{i}.jpg") for i in range(50)] + [("missing", "7.jpg")]
    table = failures_by_status(outcomes(samples=rows))
    assert table.to_dicts() == [
        {"table": "samples", "status": "missing", "count": 51, "of": 51, "reasons": 50,
         "first_reason": "7.jpg"}
    ]  # fmt: skip


def test_the_closing_summary():
    summary = summarise(
        every_type(per_type=2, layers=1),
        SCORED,
        outcomes(samples=[("missing", "x")], scores=[("no_variance", ""), ("no_variance", "y")]),
    )
    assert summary.neurons == {"visual": 2, "text": 2, "multi-modal": 2, "unknown": 2}
    assert summary.n_scored == 3
    assert summary.mean_score == pytest.approx(0.5)
    assert summary.mean_control == pytest.approx(0.2)
    assert sum(row["n"] for row in summary.by_explainer) == 3
    by_table = scores_by_type(SCORED).filter(pl.col("n") > 0)
    assert [(row["explainer"], row["simulator"]) for row in summary.by_explainer] == (
        by_table.select("explainer", "simulator").unique().sort("explainer", "simulator").rows()
    )
    assert list(summary.failures.items()) == [
        (("scores", "no_variance"), 2),
        (("samples", "missing"), 1),
    ]


def test_an_empty_run_is_summarised_without_numbers():
    summary = summarise(neuron_types(), SCORES.schema.empty_table(), {})
    assert set(summary.neurons.values()) == {0}
    assert summary.mean_score is None
    assert summary.mean_control is None
    assert summary.by_explainer == []
    assert summary.failures == {}


def test_tables_are_saved_even_when_empty(tmp_path):
    paths = write_tables(tmp_path / "tables", neuron_types(), SCORES.schema.empty_table(), {})
    assert [path.name for path in paths] == [
        "types_by_layer.csv",
        "scores_by_type.csv",
        "failures_by_reason.csv",
    ]
    assert [pl.read_csv(path).height for path in paths] == [0, 0, 0]
    paths = write_tables(tmp_path / "tables", every_type(), SCORED, {"scores": SCORED})
    assert [pl.read_csv(path).height for path in paths] == [3, 2, 2]
