import pytest

from neuron_atlas.tasks.evidence import shards
from neuron_atlas.tasks.evidence.shards import plan_replay


def planned(count: int, images: dict[int, set[str]] | None = None, size: int = 1000):
    named = images or {one: {f"image {one}"} for one in range(count)}
    return [one.sample_ids for one in plan_replay(dict.fromkeys(range(count), size), named)]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, set()), (1, {1}), (32, {32}), (100, {32, 4}), (800, {100}), (10_000, {256, 16})],
)
def test_every_sample_is_in_one_shard_of_a_fair_size(count, sizes):
    found = planned(count)
    assert sorted(one for shard in found for one in shard) == list(range(count))
    assert {len(shard) for shard in found} == sizes


def test_samples_of_one_image_are_neighbours_in_one_shard():
    images = {one: {f"image {one % 50}", f"hash {one % 50}"} for one in range(200)}
    for shard in planned(200, images):
        named = [one % 50 for one in shard]
        assert named == sorted(named)
        assert all(named.count(name) == 4 for name in named)


def test_an_image_of_more_samples_than_a_shard_holds_is_in_several():
    found = planned(600, {one: {"the same"} for one in range(600)})
    assert max(map(len, found)) <= 256
    assert sum(map(len, found)) == 600


def test_a_shard_holds_no_more_traces_than_memory_allows(monkeypatch):
    monkeypatch.setattr(shards, "_TRACE_BYTES", 10_000)
    assert {len(shard) for shard in planned(64)} == {10, 4}
    assert {len(shard) for shard in planned(4, size=99_999)} == {1}


def test_shards_of_different_samples_have_different_names():
    traces = dict.fromkeys(range(100), 1)
    names = {one.name for one in plan_replay(traces, {one: set() for one in traces})}
    assert len(names) == 4
