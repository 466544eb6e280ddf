"""A run over photographs with a column `objects`: CHAIR and POPE by its names."""

from __future__ import annotations

import pytest

from neuron_atlas.tasks.artifacts import read_table
from neuron_atlas.tasks.artifacts.grouped import GROUP_EFFECTS, GROUP_SAMPLES, GROUP_SPEECH
from tests.objects import OBJECTS, PHOTOS, SYNONYMS, write_annotations
from tests.workflows.runs import Atlas, small_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs"),
]


def test_the_truth_of_photographs_is_their_objects(ray_of_two_cores, tmp_path):
    synonyms = tmp_path / "synonyms.txt"
    synonyms.write_text(SYNONYMS, encoding="utf-8")
    annotations = write_annotations(tmp_path)
    small_run(
        tmp_path / "out",
        f"groups.synonyms={synonyms}",
        "groups.samples=12",
        "groups.described=12",
        "groups.types=[text]",
        "groups.max_new_tokens=8",
        "groups.resamples=100",
        data=(
            "data=llava_json",
            f"data.annotations={annotations}",
            f"data.images={PHOTOS / 'images'}",
        ),
    )
    atlas = Atlas(tmp_path / "out")
    chosen = read_table(atlas.files("group_samples"), GROUP_SAMPLES).to_pylist()
    ids = dict(zip(*atlas.table("samples", ["sample_id", "source_id"]).columns, strict=True))
    names = {one.as_py(): name.as_py() for one, name in ids.items()}
    measured = [row for row in chosen if row["use"] == "measured"]
    assert len(measured) == 12
    for row in measured:
        objects = OBJECTS.get(names[row["sample_id"]])
        assert row["name"] == objects
        assert row["kind"] == (None if objects is None else ["object"] * len(objects))
    said = read_table(atlas.files("group_speech"), GROUP_SPEECH).to_pylist()
    for row in said:
        objects = OBJECTS.get(names[row["sample_id"]])
        assert row["present"] == ([] if objects is None else [len(objects)])
        # The bundled subject answers neither yes nor no.
        assert row["asked"] == 0
    effects = read_table(atlas.files("group_effects"), GROUP_EFFECTS).to_pylist()
    assert {"recall", "length"} <= {row["measure"] for row in effects}
