"""Nothing that is measured has decided a type."""

from pathlib import Path

import numpy as np
import pytest

from neuron_atlas.tasks.artifacts import DESCRIPTIONS, MOMENTS, layer_file, read_table, write_table
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.classify.paper import PaperRule
from neuron_atlas.tasks.groups.members import decide_members, members_table, read_members
from neuron_atlas.tasks.groups.sets import choose_group, choose_named
from neuron_atlas.tasks.groups.settings import NamedGroup
from neuron_atlas.tasks.subject.load import Subject
from tests.one_process import Described, capture, read_exemplars

LAYER = 1
RULE = PaperRule(top_n=5)
MEASURED = (0, 3, 4, 11, 17, 20)


def captured(subject: Subject, described: Described, folder: Path) -> tuple:
    settings = CaptureSettings(top_n=12, max_exemplar_share=1.0, shards=1)
    where = capture(subject, described, [LAYER], settings, folder)
    return read_exemplars(where, LAYER), read_table(where / layer_file("moments", LAYER), MOMENTS)


def test_types_are_those_of_a_dataset_without_the_measured_samples(subject, scenes, tmp_path):
    ranked, moments = captured(subject, scenes, tmp_path / "all")
    rows = read_table(scenes.folder / "descriptions.parquet", DESCRIPTIONS)
    for name in ("samples.parquet", "concepts.parquet"):
        (tmp_path / name).symlink_to(scenes.folder / name)
    others = rows.filter(~np.isin(rows["sample_id"].to_numpy(), MEASURED))
    write_table(others, DESCRIPTIONS, tmp_path / "descriptions.parquet")
    without = captured(subject, Described(scenes.source, tmp_path), tmp_path / "without")

    members = decide_members(RULE, ranked, moments, MEASURED)
    typed = RULE.types(*without)
    assert members.types.tolist() == typed["type"].to_pylist()
    assert members.types.tolist() != RULE.types(ranked, moments)["type"].to_pylist()
    few = decide_members(PaperRule(), ranked, moments, range(20))
    assert set(few.types) > {"unknown"}, "empty slots do not vote"
    (again,) = read_members(members_table(members))
    np.testing.assert_array_equal(again.types, members.types)

    share = 8 / 512
    rows_of_type = choose_group([members], "visual", share)[LAYER]
    assert len(rows_of_type) == 8
    assert set(members.types[rows_of_type]) == {"visual"}
    others = (members.types == "visual") & ~np.isin(members.neurons, rows_of_type)
    assert members.shares[rows_of_type].min() >= members.shares[others].max()
    named = choose_named([members], NamedGroup(("1:7", "1:2")))
    assert named[LAYER].tolist() == [2, 7]
    with pytest.raises(ValueError, match="there is no neuron 1:512"):
        choose_named([members], NamedGroup(("1:512",)))
    with pytest.raises(ValueError, match="layer 2 was not captured"):
        choose_named([members], NamedGroup(("2:0",)))
