import numpy as np
import pytest

from bench.synthetic.atlas import write_synthetic_atlas
from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.artifacts import (
    EXPLANATIONS,
    NEURON_TYPES,
    SCORES,
    TESTED_TYPES,
    TYPES,
    read_table,
)
from neuron_atlas.tasks.report.controls import CONTROL_TERMS, CONTROLS
from neuron_atlas.tasks.report.site.columns import LONGEST_WORDS, NO_NUMBER, STEPS
from tests.tasks.report.site.reading import numbers, value, write


def test_a_layers_columns_are_its_types_in_the_order_of_neurons(made, site):
    types = read_table(made.layers[1]["types"], NEURON_TYPES).to_pydict()
    table = value(site, "table/1")
    assert numbers(table["neuron"], "<u4").tolist() == types["neuron"]
    assert [TYPES[code] for code in numbers(table["type"], "u1")] == types["type"]
    assert numbers(table["scale"], "<f4").tolist() == pytest.approx(types["scale"])
    shares = numbers(table["shares"], "u1").reshape(-1, 4) / 255
    assert shares[:, 2] == pytest.approx(np.array(types["share_multimodal"]), abs=0.003)
    assert set(numbers(table["tested"], "u1")) <= set(range(len(TESTED_TYPES)))


def test_scores_stand_by_explainer_and_what_is_undefined_is_no_number(made, site):
    index = value(site, "index")
    assert index["pairs"] == [["gpt4o", "chat"], ["dissect", "chat"]]
    assert index["level"] == 0.05
    rows = {
        row["neuron"]: row
        for row in read_table(made.layers[0]["scores"], SCORES).to_pylist()
        if row["explainer"] == "gpt4o"
    }
    kept = numbers(value(site, "scores/0/0")["correlation"], "<i2")
    for neuron, number in enumerate(kept):
        known = rows.get(neuron, {}).get("correlation")
        if known is None:
            assert number == NO_NUMBER
        else:
            assert number / STEPS == pytest.approx(known, abs=1e-4)
    assert NO_NUMBER in kept
    assert (kept != NO_NUMBER).sum() > 40


def test_an_outcome_says_why_there_is_no_score(made, site):
    names = value(site, "index")["outcomes"]
    outcomes = [names[code] for code in numbers(value(site, "scores/1/0")["outcome"], "u1")]
    said = {
        row["neuron"]: row["status"]
        for row in read_table(made.layers[0]["explanations"], EXPLANATIONS).to_pylist()
        if row["explainer"] == "dissect"
    }
    scored = {
        row["neuron"]: row["status"]
        for row in read_table(made.layers[0]["scores"], SCORES).to_pylist()
        if row["explainer"] == "dissect"
    }
    for neuron, outcome in enumerate(outcomes):
        if neuron not in said:
            assert outcome == "not explained"
        elif said[neuron] != "ok":
            assert outcome == said[neuron] == "refused"
        else:
            assert outcome == scored[neuron].replace("ok", "scored")
    assert outcomes[0] == "not explained"


def test_a_neuron_beats_its_controls_where_its_q_is_at_most_the_level(made, site):
    beats = numbers(value(site, "scores/0/0")["beats"], "u1")
    for row in read_table(made.layers[0]["scores"], SCORES).to_pylist():
        if row["explainer"] == "gpt4o":
            assert beats[row["neuron"]] == (row["q"] is not None and row["q"] <= 0.05)
    assert 0 < beats.sum() < len(beats)


def test_the_control_of_a_neuron_is_its_strongest_and_has_a_name(made, site):
    words = value(site, "index")["control_terms"]
    kept = value(site, "scores/0/0")
    controls, names = numbers(kept["control"], "<i2"), numbers(kept["strongest"], "u1")
    compared = 0
    for row in read_table(made.layers[0]["scores"], SCORES).to_pylist():
        known = [row[name] for name in CONTROLS if row[name] is not None]
        if row["explainer"] == "gpt4o" and known:
            best = max(known)
            compared += 1
            assert controls[row["neuron"]] / STEPS == pytest.approx(best, abs=1e-4)
            named = words[names[row["neuron"]]]
            assert named in {CONTROL_TERMS[name] for name in CONTROLS if row[name] == best}
    assert compared > 40


def test_explanations_are_a_line_each_however_they_are_written(tmp_path):
    texts = iter(["one\ntwo\u2028three", "x" * 5000] + ["y"] * 200)
    made = write_synthetic_atlas(
        tmp_path, Sizes(layers=(0,), neurons=8, samples=4), ["gpt4o"], lambda _: next(texts)
    )
    lines = value(write(made, tmp_path / "site"), "words/0/0").split("\n")
    assert len(lines) == 8
    assert lines[0] == ""  # It was not explained.
    assert lines[1] == "one two three"
    assert lines[2] == "x" * LONGEST_WORDS


def test_the_index_counts_what_there_is(site):
    index = value(site, "index")
    assert [layer["layer"] for layer in index["layers"]] == [0, 1]
    for layer in index["layers"]:
        assert (layer["neurons"], layer["first"], layer["last"]) == (64, 0, 63)
        assert sum(layer["types"].values()) == 64
    assert index["rules"] == ["paper", "tested"]
    assert {"scored", "not explained"} <= set(index["seen_outcomes"]) <= set(index["outcomes"])


def test_an_atlas_in_which_nothing_was_explained_has_a_table_all_the_same(tmp_path):
    sizes = Sizes(layers=(2,), neurons=8, samples=4, unexplained=1)
    site = write(write_synthetic_atlas(tmp_path, sizes, []), tmp_path / "site")
    assert value(site, "index")["pairs"] == [["", ""]]
    assert set(numbers(value(site, "scores/0/2")["correlation"], "<i2")) == {NO_NUMBER}
    assert value(site, "index")["seen_outcomes"] == ["not explained"]
