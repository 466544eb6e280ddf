import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from neuron_atlas.tasks.artifacts import (
    HISTOGRAMS,
    MOMENTS,
    exemplars_spec,
    layer_file,
    read_table,
)
from neuron_atlas.tasks.capture.merge import merge_layer
from tests.tasks.capture.synthetic import NEURONS, make_sample, ranked, shard
from tests.tasks.exemplars import exemplar_table

SAMPLES = [make_sample(sample_id, values=6) for sample_id in range(24)]
TOP_N = 7
CUTS = {
    "one": [range(24)],
    "two": [range(24)[::2], range(24)[1::2]],
    "uneven": [range(5), range(5, 6), range(6, 24)],
    "five": [range(start, min(start + 5, 24)) for start in range(0, 24, 5)],
}


def shards(folder: Path, cut: str, top_n: int = TOP_N) -> list[Path]:
    return [
        shard(folder / f"{cut}-{number}", [SAMPLES[i] for i in part], top_n)
        for number, part in enumerate(CUTS[cut])
    ]


def merged(folders: list[Path], top_n: int = TOP_N) -> dict[str, pa.Table]:
    into = folders[0].parent / "-".join(["merged", *(folder.name for folder in folders)])
    merge_layer(folders, 4, top_n, into)
    specs = (exemplars_spec(top_n), MOMENTS, HISTOGRAMS)
    return {spec.name: read_table(into / layer_file(spec.name, 4), spec) for spec in specs}


def assert_same(first: dict[str, pa.Table], second: dict[str, pa.Table]) -> None:
    for name in ("exemplars", "histograms"):
        np.testing.assert_equal(first[name].to_pydict(), second[name].to_pydict(), name)
    for name in MOMENTS.schema.names:
        a, b = (tables["moments"][name].to_numpy() for tables in (first, second))
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    return merged(shards(tmp_path_factory.mktemp("whole"), "one"))


@pytest.mark.parametrize("cut", ["two", "uneven", "five"])
def test_any_cut_into_shards_merges_to_what_one_process_records(whole, cut, tmp_path):
    assert_same(merged(shards(tmp_path, cut)), whole)


def test_the_order_of_the_shards_does_not_matter(whole, tmp_path):
    assert_same(merged(shards(tmp_path, "five")[::-1]), whole)


def test_a_shard_that_is_delivered_twice_changes_nothing(whole, tmp_path):
    folders = shards(tmp_path, "two")
    elsewhere = shutil.copytree(folders[0], tmp_path / "elsewhere" / folders[0].name)
    assert_same(merged([*folders, elsewhere, folders[1]]), whole)


def test_merges_of_merges_are_the_merge_of_all(whole, tmp_path):
    folders = shards(tmp_path, "five")
    groups = [folders[:2], folders[2:4], folders[4:]]
    for number, group in enumerate(groups):
        merge_layer(group, 4, TOP_N, tmp_path / f"group-{number}", is_shard=True)
    assert_same(merged([tmp_path / f"group-{number}" for number in range(3)]), whole)


def test_the_merged_exemplars_are_the_best_of_all_samples_ties_by_sample_id(tmp_path):
    tables = merged(shards(tmp_path, "five"))
    for row in tables["exemplars"].to_pylist():
        best = ranked(SAMPLES, row["neuron"], TOP_N)
        assert row["sample_id"] == [sample.sample_id for sample in best]
    ties = [len(set(row)) < TOP_N for row in tables["exemplars"]["peak"].to_pylist()]
    assert any(ties)


@pytest.mark.parametrize("cut", ["one", "uneven"])
def test_every_exemplar_keeps_what_is_stored_of_it(cut, tmp_path):
    table = merged(shards(tmp_path, cut))["exemplars"]
    of = {
        neuron: [
            (sample.sample_id, sample.visual[:, neuron], sample.text[:, neuron])
            for sample in ranked(SAMPLES, neuron, TOP_N)
        ]
        for neuron in range(NEURONS)
    }
    np.testing.assert_equal(table.to_pydict(), exemplar_table(of, 4).to_pydict())


def test_fewer_samples_than_slots_merge_without_inventing_any(tmp_path):
    whole = merged(shards(tmp_path, "one", top_n=30), top_n=30)
    assert_same(merged(shards(tmp_path, "five", top_n=30), top_n=30), whole)
    for ids in whole["exemplars"]["sample_id"].to_pylist():
        assert sorted(ids[:24]) == list(range(24))
        assert ids[24:] == [-1] * 6


def test_a_role_that_one_shard_lacks_is_taken_from_the_others(tmp_path):
    silent = [make_sample(sample_id, silent=True) for sample_id in range(100, 104)]
    speaking = SAMPLES[:5]
    folders = [
        shard(tmp_path / name, samples, TOP_N)
        for name, samples in (("silent", silent), ("speaking", speaking))
    ]
    moments = merged(folders)["moments"]
    texts = np.concatenate([sample.text for sample in speaking])
    np.testing.assert_allclose(moments["mean_text"], texts.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(moments["max_text"], texts.max(0))
    alone = merged(folders[:1])["moments"]
    assert np.isnan(alone["max_text"].to_numpy()).all()
    assert set(alone["n_text"].to_pylist()) == {0}
