from dataclasses import replace
from pathlib import Path

import pytest

from neuron_atlas.tasks.capture.demand import plan_shard_memory
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.capture.shard import capture_shard
from neuron_atlas.tasks.capture.shard_plan import plan_shards

SETTINGS = CaptureSettings(top_n=4, random_samples=2, shards=1)


def test_a_shard_that_cannot_be_put_in_its_place_is_an_error_and_not_lost(
    subject, scenes, tmp_path, monkeypatch
):
    (shard,) = plan_shards(scenes.descriptions, [1], SETTINGS, 512)
    catalog = scenes.catalog(shard.sample_ids)

    def refuse(self, target):
        raise PermissionError("read only")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        capture_shard(subject, shard, catalog, tmp_path / "shard")
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]


def test_a_shard_whose_traces_are_replayed_says_so(subject, scenes, tmp_path, caplog):
    (shard,) = plan_shards(scenes.descriptions, [0, 1], SETTINGS, 512)
    demand = plan_shard_memory(subject, shard).demand
    for_one = (demand.work + demand.rankings + 1.5 * demand.traces[0]) / 0.9 / 1e9
    shard = replace(shard, settings=replace(SETTINGS, device_memory_gb=for_one))
    capture_shard(subject, shard, scenes.catalog(shard.sample_ids), tmp_path / "shard")
    assert f"{shard.name}: weights 6 MB" in caplog.text
    assert "(layers: 1 on the device, 1 replayed); passes: 2" in caplog.text
