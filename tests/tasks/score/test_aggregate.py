import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import SCORE_AGGREGATES, SCORES, write_table
from neuron_atlas.tasks.score.aggregate import MEASURES, aggregate_scores
from neuron_atlas.tasks.score.settings import ScoreSettings

BEATEN = ("beats_control", "beats_broader", "beats_narrower")
SETTINGS = ScoreSettings(resamples=400, max_q=0.1)


def scores(**columns) -> pa.Table:
    number = len(next(iter(columns.values())))
    same = {"explainer": "a", "simulator": "b", "tokens": "all", "type": "visual", "layer": 0}
    given = {name: [value] * number for name, value in same.items()} | columns
    rows = [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
    return pa.Table.from_pylist(rows, schema=SCORES.schema)


def gathered(table: pa.Table, by: str = "all", measure: str = "correlation") -> dict[str, dict]:
    """Rows of a measure by group."""
    aggregates = aggregate_scores(table, SETTINGS)
    assert aggregates.schema.equals(SCORE_AGGREGATES.schema)
    rows = [row for row in aggregates.to_pylist() if (row["by"], row["measure"]) == (by, measure)]
    return {row["group"]: row for row in rows}


def test_undefined_scores_are_counted_and_in_no_mean():
    row = gathered(scores(correlation=[0.2, None, 0.6, None, 0.1]))[""]
    assert (row["n"], row["undefined"]) == (3, 2)
    assert row["mean"] == pytest.approx(0.3)
    assert row["median"] == pytest.approx(0.2)


def test_every_measure_has_its_row_and_what_is_never_defined_has_no_mean(tmp_path):
    aggregates = aggregate_scores(scores(correlation=[0.2, 0.4]), SETTINGS)
    rows = [row for row in aggregates.to_pylist() if row["by"] == "all"]
    assert [row["measure"] for row in rows] == [*MEASURES, *BEATEN]
    for row in rows[1:]:
        assert (row["n"], row["undefined"], row["mean"], row["ci_low"]) == (0, 2, None, None)
    write_table(aggregates, SCORE_AGGREGATES, tmp_path / "aggregates")


def test_types_layers_and_explainers_are_gathered_apart():
    table = scores(
        correlation=[0.1, 0.2, 0.3, 0.4],
        type=["visual", "text", "text", "visual"],
        layer=[0, 0, 10, 10],
    )
    assert {g: r["mean"] for g, r in gathered(table, "type").items()} == pytest.approx(
        {"visual": 0.25, "text": 0.25}
    )
    assert {g: r["mean"] for g, r in gathered(table, "layer").items()} == pytest.approx(
        {"0": 0.15, "10": 0.35}
    )
    aggregates = aggregate_scores(
        scores(
            correlation=[0.1, 0.5, 0.9], explainer=["a", "b", "b"], tokens=["all", "all", "text"]
        ),
        SETTINGS,
    ).to_pylist()
    found = {
        (row["explainer"], row["tokens"]): row["mean"]
        for row in aggregates
        if (row["by"], row["measure"]) == ("all", "correlation")
    }
    assert found == pytest.approx({("a", "all"): 0.1, ("b", "all"): 0.5, ("b", "text"): 0.9})


def test_the_interval_is_of_the_mean_over_neurons_and_about_two_standard_errors_wide():
    values = np.random.default_rng(0).normal(0.3, 0.1, 400)
    row = gathered(scores(correlation=[*values.tolist(), None]))[""]
    assert row["ci_low"] < row["mean"] < row["ci_high"]
    assert (row["ci_high"] - row["ci_low"]) / 2 == pytest.approx(1.96 * 0.1 / 20, rel=0.15)
    assert row == gathered(scores(correlation=[*values.tolist(), None]))[""]


def test_one_neuron_has_no_interval():
    row = gathered(scores(correlation=[0.4, None]))[""]
    assert (row["ci_low"], row["ci_high"]) == (None, None)


def test_the_share_that_beats_its_controls_is_of_those_tested_at_the_stated_q():
    table = scores(correlation=[0.5] * 4, q=[0.01, 0.1, 0.11, None])
    row = gathered(table, measure="beats_control")[""]
    assert (row["n"], row["undefined"], row["max_q"]) == (3, 1, 0.1)
    assert row["mean"] == pytest.approx(2 / 3)


def test_no_scores_are_no_aggregates():
    assert len(aggregate_scores(SCORES.schema.empty_table(), SETTINGS)) == 0


def test_controls_are_gathered_over_the_neurons_that_have_a_score():
    """Of other neurons' means the difference is no margin."""
    table = scores(
        correlation=[0.5, None, 0.7], control_blind=[0.1, 0.9, 0.3], control_other=[0.0, 0.8, None]
    )
    blind, other = (gathered(table, measure=f"control_{name}")[""] for name in ("blind", "other"))
    assert (blind["n"], blind["undefined"]) == (2, 1)
    assert blind["mean"] == pytest.approx(0.2)
    assert (other["n"], other["mean"]) == (1, 0)
