import json
from dataclasses import replace

import numpy as np
import pytest

from bench.synthetic.atlas import write_synthetic_atlas
from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.artifacts import (
    EVIDENCE,
    HISTOGRAMS,
    NEURON_TYPES,
    SIMULATIONS,
    exemplars_spec,
    read_table,
)
from neuron_atlas.tasks.artifacts.histogram import BINS
from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.report.site.held_out import choose_held_out
from neuron_atlas.tasks.report.site.layout import split_layer
from neuron_atlas.tasks.report.site.traces import draw_traces, encode_trace
from neuron_atlas.tasks.samples.catalog import Catalog
from tests.tasks.report.site.reading import neuron, numbers, value, write
from tests.tasks.report.synthetic import catalog, sample


def test_activations_are_bytes_of_which_255_is_the_neurons_highest(made, site):
    row = read_table(made.layers[0]["types"], NEURON_TYPES).to_pylist()[9]
    traces = read_table(made.layers[0]["evidence"], EVIDENCE).to_pylist()
    first = next(one for one in traces if one["neuron"] == 9 and one["rank"] == 0)
    sample_id, peak, _, image, text = neuron(site, 0, 9)["exemplars"][0]
    assert sample_id == first["sample_id"]
    assert peak == pytest.approx(max(*first["visual"], *first["text"]), rel=2e-3)
    for drawn, true in ((image, first["visual"]), (text, first["text"])):
        wanted = np.clip(np.array(true, np.float32), 0, None) / row["scale"] * 255
        assert numbers(drawn, "u1") == pytest.approx(wanted, abs=0.6)


def test_what_is_negative_or_no_number_is_silent():
    seen = ActivationRecord(0, np.zeros(0, np.float32), np.array([-1, np.nan, 0.5, 2], np.float32))
    assert numbers(encode_trace(seen, 1.0, Catalog({}))[1], "u1").tolist() == [0, 0, 128, 255]
    assert numbers(encode_trace(seen, 0.0, Catalog({}))[1], "u1").tolist() == [0, 0, 0, 0]


def test_a_heat_map_is_left_out_where_the_sample_has_changed():
    layout = catalog(sample(0, grid=(2, 2)))
    seen = ActivationRecord(0, np.ones(9, np.float32), np.ones(1, np.float32))
    assert encode_trace(seen, 1.0, layout)[0] == ""
    assert (
        encode_trace(ActivationRecord(0, np.ones(4, np.float32), seen.text), 1.0, layout)[0] != ""
    )


def test_many_traces_are_drawn_as_each_alone():
    rng = np.random.default_rng(0)
    tiles = replace(
        sample(2, grid=(2, 2)),
        regions=(*sample(2, grid=(2, 2)).regions, Region(0, 1, 1, 0, 0, 9, 9)),
    )
    layouts = catalog(sample(0, grid=(2, 2)), sample(1, grid=(3, 3)), tiles)
    traces, scales = [], []
    for number, visual in ((0, 4), (1, 9), (2, 5), (0, 3), (7, 4), (1, 0)):
        drawn = [rng.normal(size=n).astype(np.float32) for n in (visual, number)]
        drawn[0][:1] = np.nan
        traces.append(ActivationRecord(number, *drawn))
        scales.append(1.5 * number - 1)
    expected = [encode_trace(*one, layouts) for one in zip(traces, scales, strict=True)]
    assert draw_traces(traces, scales, layouts) == expected
    assert draw_traces([], [], layouts) == []


def test_settings_bound_what_is_shown_of_a_neuron(made, tmp_path):
    site = write(
        made,
        tmp_path / "site",
        exemplars=3,
        exemplars_of_unexplained=1,
        total_exemplars=4,
        held_out=2,
    )
    explained, other = neuron(site, 0, 9), neuron(site, 0, 8)
    assert [len(explained[part]) for part in ("exemplars", "weaker")] == [3, 1]
    assert [len(other[part]) for part in ("exemplars", "weaker")] == [1, 3]
    assert len(explained["held_out"]["samples"]) == 2
    assert other["held_out"] == {"samples": [], "simulated": []}
    assert other["explanations"] == []


def test_exemplars_are_those_of_the_table_strongest_first(made, site):
    table = read_table(made.layers[1]["exemplars"], exemplars_spec(6)).to_pylist()[5]
    details = neuron(site, 1, 5)
    shown = [*details["exemplars"], *details["weaker"]]
    assert [one[0] for one in shown] == table["sample_id"]
    assert [one[1] for one in shown] == pytest.approx(table["peak"], rel=1e-3)
    assert [one[2] for one in shown] == table["peak_role"]


def test_real_stands_beside_what_each_explainer_predicts(made, site):
    held = neuron(site, 0, 9)["held_out"]
    assert [draw for _, draw, *_ in held["samples"]] == ["exemplar"] * 2 + ["random"] * 2
    assert [one["explainer"] for one in held["simulated"]] == ["dissect", "gpt4o"]
    rows = [
        row
        for row in read_table(made.layers[0]["simulations"], SIMULATIONS).to_pylist()
        if row["neuron"] == 9 and row["explainer"] == "gpt4o"
    ]
    highest = max(max(*row["visual"], *row["text"]) for row in rows)
    by_sample = {row["sample_id"]: row for row in rows}
    real = {row["sample_id"]: row for row in _true_traces(made, 9)}
    for (sample_id, *_), (image, _, r) in zip(
        held["samples"], held["simulated"][1]["traces"], strict=True
    ):
        row = by_sample[sample_id]
        assert numbers(image, "u1") == pytest.approx(
            np.array(row["visual"]) / highest * 255, abs=0.6
        )
        true = np.array([*real[sample_id]["visual"], *real[sample_id]["text"]], float)
        predicted = np.array([*row["visual"], *row["text"]], float)
        assert r == pytest.approx(np.corrcoef(true, predicted)[0, 1], abs=2e-3)


def test_held_out_samples_are_half_exemplars_spread_from_strong_to_weak(made):
    table = read_table(made.layers[0]["simulations"], SIMULATIONS)
    rows = [
        {"neuron": 1, "sample_id": place, "stratum": "exemplar" if place < 9 else "random"}
        for place in range(12)
    ]
    table = table.schema.empty_table().select([]).from_pylist(rows)
    chosen = choose_held_out(table, 6)[1]
    assert [place for place, draw in chosen.items() if draw == "exemplar"] == [1, 4, 7]
    assert [place for place, draw in chosen.items() if draw == "random"] == [9, 10, 11]
    assert choose_held_out(table, 0)[1] == {}


def test_histograms_are_summed_over_blocks_by_role(made, site):
    table = read_table(made.layers[0]["histograms"], HISTOGRAMS).to_pylist()[3]
    drawn = neuron(site, 0, 3)["histogram"]
    for role in ("visual", "text"):
        blocks = np.array(table[role]).reshape(-1, BINS)
        assert drawn[role] == blocks.sum(axis=0).tolist()


def test_every_neuron_has_its_place_in_its_chunk(site):
    index = value(site, "index")
    for layer in index["layers"]:
        places = [
            (chunk, place, row["neuron"])
            for chunk in range(layer["neurons"] // index["chunk"])
            for place, row in enumerate(value(site, f"neurons/{layer['layer']}/{chunk}"))
        ]
        assert [n for _, _, n in places] == list(range(layer["neurons"]))
        assert all(n == chunk * index["chunk"] + place for chunk, place, n in places)


def test_parts_that_are_written_apart_give_the_same_files(made, site, tmp_path, monkeypatch):
    monkeypatch.setattr("neuron_atlas.tasks.report.site.layout.PART", 32)
    assert len(split_layer(made.layers[0])) == 2
    again = write(made, tmp_path / "site")

    def content(folder):
        return {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }

    assert content(again) == content(site)


def test_several_layers_without_a_first_neuron_are_found(tmp_path):
    made = write_synthetic_atlas(tmp_path, Sizes(layers=(5, 31), neurons=40, samples=6), ["gpt4o"])
    site = write(made, tmp_path / "site")
    assert [layer["layer"] for layer in value(site, "index")["layers"]] == [5, 31]
    assert neuron(site, 31, 39)["neuron"] == 39
    assert json.dumps(neuron(site, 5, 0))


def _true_traces(made, wanted):
    rows = read_table(made.layers[0]["evidence"], EVIDENCE).to_pylist()
    return [row for row in rows if row["neuron"] == wanted]
