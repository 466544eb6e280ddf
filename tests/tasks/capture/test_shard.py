from pathlib import Path

import pytest

from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.capture.shard import capture_shard
from neuron_atlas.tasks.capture.shard_plan import plan_shards

SETTINGS = CaptureSettings(top_n=4, shards=1)


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
