"""The samples that are measured, and what is known of their images."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from neuron_atlas.tasks.artifacts import SAMPLES, read_table, write_table
from neuron_atlas.tasks.groups.choose import choose_samples, truths_of
from neuron_atlas.tasks.samples.scenes import Scenes


@dataclass(frozen=True)
class Listed(Scenes):
    """Scenes of which the dataset lists objects."""

    def objects(self, source_ids):
        return {one: ("dog", "cup", "dog") for one in source_ids if int(one[-1]) % 2}


def chosen(scenes, samples: Path, concepts: list[Path], source, described: int = 2) -> pa.Table:
    descriptions = [scenes.folder / "descriptions.parquet"]
    return choose_samples([samples], descriptions, concepts, source, 6, described, 0)


def test_samples_that_share_an_image_are_set_aside_and_halves_share_none(scenes, tmp_path):
    """Every sample has the image of the one before or after it."""
    listed = read_table(scenes.folder / "samples.parquet", SAMPLES)
    images = [[f"31/{one // 2}"] for one in range(len(listed))]
    places = {"images": images, "image_sha256": [one[0] for one in images]}
    for name, values in places.items():
        at = listed.schema.get_field_index(name)
        listed = listed.set_column(at, listed.schema.field(name), pa.array(values))
    write_table(listed, SAMPLES, tmp_path / "samples.parquet")
    rows = chosen(scenes, tmp_path / "samples.parquet", [], scenes.source).to_pylist()
    measured = {row["sample_id"]: row for row in rows if row["use"] == "measured"}
    aside = {row["sample_id"] for row in rows if row["use"] == "set_aside"}
    assert len(measured) == 6
    assert {one ^ 1 for one in measured} == aside | {one for one in measured if one ^ 1 in measured}
    for one, row in measured.items():
        if one ^ 1 in measured:
            assert measured[one ^ 1]["half"] == row["half"]
    assert {row["half"] for row in measured.values()} == {"choose", "report"}
    assert sum(row["described"] for row in rows) == 2


def test_the_truth_is_that_of_the_scene_or_of_the_rows_objects(scenes):
    samples, concepts = (scenes.folder / f"{name}.parquet" for name in ("samples", "concepts"))
    drawn = truths_of(chosen(scenes, samples, [concepts], scenes.source))
    assert len(drawn) == 6
    assert all({"color", "shape", "size"} <= {kind for kind, _ in one} for one in drawn.values())
    table = chosen(scenes, samples, [], Listed(count=24, seed=31))
    listed = truths_of(table)
    assert set(listed) == {one for one in table["sample_id"].to_pylist() if one % 2}
    assert listed
    assert all(one == {("object", "dog"), ("object", "cup")} for one in listed.values())
    assert truths_of(chosen(scenes, samples, [], scenes.source)) == {}
