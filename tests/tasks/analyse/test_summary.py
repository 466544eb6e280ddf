from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from neuron_atlas.tasks.analyse.agreement import type_agreement, type_kappa
from neuron_atlas.tasks.analyse.shares import wilson_interval
from neuron_atlas.tasks.analyse.summary import summarize_types
from neuron_atlas.tasks.artifacts import ALL_LAYERS, NEURON_TESTS, RESPONSES, TESTED_TYPES, TYPES
from tests.tasks.report.synthetic import neuron_types

KINDS = [
    # layer, neuron, type, type_tested, active_visual, top_words, same_concept
    (0, 0, "visual", "visual", 0.1, [], None),
    (0, 1, "visual", "multi-modal", 0.3, ["cup"], True),
    (0, 2, "text", "text", 0.0, ["dog", "cup"], False),
    (0, 3, "text", "text", 0.0, ["dog"], None),
    (2, 0, "unknown", "silent", None, [], None),
    (2, 1, "unknown", "undecided", 0.2, ["cup"], False),
]


def tables(tested: bool = True) -> dict[str, list[dict[str, Any]]]:
    keys = (
        "layer",
        "neuron",
        "type",
        "type_tested",
        "positive_visual",
        "top_words",
        "same_concept",
    )
    rows = [dict(zip(keys, row, strict=True)) for row in KINDS]
    types = neuron_types(*({key: row[key] for key in keys[:3]} for row in rows))
    of_tests = pa.Table.from_pylist(rows, schema=NEURON_TESTS.schema) if tested else None
    responses = pa.Table.from_pylist(rows, schema=RESPONSES.schema)
    found = summarize_types(types, of_tests, responses, top_words=1)
    for spec, table in found:
        assert table.schema.equals(spec.schema)
        assert table.group_by(list(spec.key)).aggregate([]).num_rows == table.num_rows
    return {spec.name: table.to_pylist() for spec, table in found}


@pytest.mark.parametrize(("n", "of"), [(0, 10), (3, 10), (10, 10), (5000, 352_256), (1, 1)])
def test_an_interval_is_scipys_wilson_interval(n, of):
    low, high = wilson_interval(np.array([n]), np.array([of]))
    theirs = binomtest(n, of).proportion_ci(method="wilson")
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert low[0] <= n / of <= high[0]


def test_shares_are_of_each_layer_and_of_all_and_name_every_type():
    rows = {(r["rule"], r["layer"], r["type"]): r for r in tables()["type_shares"]}
    assert len(rows) == 3 * (len(TYPES) + len(TESTED_TYPES))
    row = rows["paper", 0, "text"]
    assert (row["n"], row["total"], row["share"]) == (2, 4, 0.5)
    assert 0 < row["ci_low"] < 0.5 < row["ci_high"] < 1
    assert rows["tested", ALL_LAYERS, "text"]["share"] == 2 / 6
    assert rows["tested", 2, "visual"]["n"] == 0
    assert rows["tested", 2, "visual"]["ci_high"] > 0.3  # Two neurons say little.


def test_shares_of_a_rule_and_layer_add_up_to_1():
    shares = pl.DataFrame(tables()["type_shares"])
    sums = shares.group_by("rule", "layer").agg(pl.col("share").sum())["share"]
    assert sums.to_list() == pytest.approx([1.0] * 6)


def test_agreement_counts_every_pair_of_types():
    counts = {(r["type"], r["type_tested"]): r["n"] for r in tables()["type_agreement"]}
    assert len(counts) == len(TYPES) * len(TESTED_TYPES)
    assert counts["visual", "multi-modal"] == counts["visual", "visual"] == 1
    assert counts["text", "text"] == 2
    assert sum(counts.values()) == len(KINDS)


def kappa(pairs: dict[tuple[str, str], int]) -> dict[str, Any]:
    rows = [pair for pair, n in pairs.items() for _ in range(n)]
    frame = pl.DataFrame(rows, schema={"type": pl.String, "type_tested": pl.String}, orient="row")
    (row,) = type_kappa(type_agreement(frame)).to_pylist()
    return row


def test_kappa_of_a_worked_example():
    # 20 + 15 of 50 agree; by chance 25 * 30 + 25 * 20 of 2,500: (0.7 - 0.5) / (1 - 0.5).
    pairs = {("visual", "visual"): 20, ("visual", "text"): 5}
    pairs |= {("text", "visual"): 10, ("text", "text"): 15}
    row = kappa(pairs)
    assert (row["n"], row["agreement"], row["expected_agreement"]) == (50, 0.7, 0.5)
    assert row["kappa"] == pytest.approx(0.4)
    # The standard error is sqrt(0.7 * 0.3 / 50) / 0.5 = 0.1296.
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.4 - 0.2540, 0.4 + 0.2540), abs=1e-4)


def test_silent_and_undecided_agree_with_unknown():
    same = {("unknown", "silent"): 3, ("unknown", "undecided"): 2, ("text", "text"): 4}
    assert kappa(same)["kappa"] == 1
    assert kappa({("unknown", "visual"): 3, ("text", "text"): 4})["kappa"] < 1


def test_without_anything_to_agree_on_there_is_no_kappa():
    assert kappa({("text", "text"): 5})["kappa"] is None
    assert tables(tested=False)["type_kappa"] == []


def test_responses_are_gathered_by_type_where_they_are_known():
    rows = {(r["rule"], r["type"], r["measure"]): r for r in tables()["type_responses"]}
    visual = rows["paper", "visual", "positive_visual"]
    assert (visual["n"], visual["mean"], visual["p50"]) == (
        2,
        pytest.approx(0.2),
        pytest.approx(0.2),
    )
    assert visual["p5"] < visual["p25"] < visual["p75"] < visual["p95"]
    assert rows["paper", "unknown", "positive_visual"]["n"] == 1  # The other's is null.
    assert ("tested", "silent", "positive_visual") not in rows


def test_concepts_are_counted_where_both_roles_name_one():
    rows = {(r["rule"], r["type"]): r for r in tables()["type_concepts"]}
    assert (rows["tested", "multi-modal"]["n"], rows["tested", "multi-modal"]["total"]) == (1, 1)
    assert (rows["paper", "text"]["n"], rows["paper", "text"]["total"]) == (0, 1)
    nothing = rows["tested", "silent"]
    assert (nothing["total"], nothing["share"], nothing["ci_low"]) == (0, None, None)


def test_top_words_are_the_commonest_first_ones_of_each_type():
    rows = [(r["rule"], r["type"], r["word"], r["n"]) for r in tables()["type_top_words"]]
    assert ("paper", "text", "dog", 2) in rows
    assert ("tested", "multi-modal", "cup", 1) in rows
    assert len([row for row in rows if row[:2] == ("paper", "text")]) == 1


def test_without_tests_there_is_the_papers_typing_alone():
    made = tables(tested=False)
    assert {row["rule"] for row in made["type_shares"]} == {"paper"}
    assert made["type_agreement"] == []
    assert {row["rule"] for row in made["type_concepts"]} == {"paper"}
