"""Families without a function of their own: their layout is found by changing parts of images."""

import pytest
import torch

from neuron_atlas.tasks.artifacts.regions import view_of
from neuron_atlas.tasks.subject import find_layout as probing
from neuron_atlas.tasks.subject.describe import describe_samples
from neuron_atlas.tasks.subject.encode import VISUAL, encode
from neuron_atlas.tasks.subject.families import FAMILIES
from neuron_atlas.tasks.subject.find_layout import find_layout
from neuron_atlas.tasks.subject.layout import is_located
from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectError, SubjectSettings
from tests.families.building import build
from tests.families.checks import run
from tests.families.instances import BUILDS
from tests.families.pictures import PICTURES, SEVERAL, TEXT_SAID
from tests.families.table import Row, row
from tests.families.wide import WIDE

GRID = "one grid over the whole image, of the processor's rows and columns"
PROBED = {
    "qwen2_vl": GRID,
    "glm46v": GRID,
    "paligemma": "one grid of the vision tower's patches",
    "aya_vision": "square tiles then a thumbnail",
    "deepseek_vl": "one square grid over the image padded to a square",
}


@pytest.mark.parametrize("kind", PROBED)
def test_a_type_without_a_function_runs_with_a_probed_layout(kind):
    assert row(kind) == Row(kind, "probed", PROBED[kind])


@pytest.mark.parametrize("family", ["llava", "llava_next", "qwen2_5_vl", "internvl", "gemma3"])
def test_probing_finds_the_regions_of_a_family_that_is_known(family, tmp_path):
    known = load_subject(SubjectSettings(model=str(build(BUILDS[family], tmp_path))), threads=1)
    assert family in FAMILIES
    assert known.layout.kind == "known"
    probed = load_subject(SubjectSettings(model=str(tmp_path), geometry="probe"), threads=1)
    assert probed.layout.kind == "probed"
    for images in ([PICTURES["odd"]], [PICTURES["portrait"]], SEVERAL):
        mine, theirs = (encode(one, images, TEXT_SAID) for one in (probed, known))
        assert mine.regions == theirs.regions
        assert torch.equal(mine.roles, theirs.roles)


def test_a_layout_that_looks_elsewhere_is_not_taken(tmp_path, monkeypatch):
    """Rows and columns exchanged: as many tokens, each at another place. Without a layout the
    subject runs, and its tokens count as tokens of the whole image."""
    rows_first = BUILDS["qwen2_5_vl"]
    settings = SubjectSettings(model=str(build(rows_first, tmp_path)), geometry="probe")
    lay_out = FAMILIES["qwen2_5_vl"]

    def exchanged(sample):
        grids = lay_out(sample)
        return [
            type(grid)(
                type(grid.region)(
                    grid.region.image,
                    grid.region.columns,
                    grid.region.rows,
                    grid.region.left,
                    grid.region.top,
                    grid.region.right,
                    grid.region.bottom,
                )
            )
            for grid in grids
        ]

    monkeypatch.setattr(probing, "candidates", lambda: {"exchanged": exchanged})
    subject = load_subject(settings, threads=1)
    assert subject.layout.kind == "none"
    run(subject)
    (described,) = describe_samples(
        subject,
        [{"sample_id": 0, "text": TEXT_SAID}],
        [[PICTURES["odd"]]],
        DescribeSettings(text_source="given"),
    )
    assert described["status"] == "ok"
    assert described["n_visual"] == len(described["regions"]) > 10
    encoded = encode(subject, [PICTURES["odd"]], TEXT_SAID)
    assert not is_located(encoded.regions)
    assert (view_of(encoded.regions).width, view_of(encoded.regions).height) == (211, 187)
    monkeypatch.setattr(probing, "candidates", lambda: {"exchanged": exchanged, "right": lay_out})
    assert find_layout(subject).lay_out is lay_out


def test_geometry_none_gives_every_token_the_whole_image(tmp_path):
    folder = str(build(BUILDS["llava"], tmp_path))
    subject = load_subject(SubjectSettings(model=folder, geometry="none"), threads=1)
    regions = encode(subject, SEVERAL, TEXT_SAID).regions
    assert [region.image for region in regions] == [0] * 16 + [1] * 16
    assert {(region.right, region.bottom) for region in regions} == {(300, 100), (90, 260)}


def test_tokens_that_do_not_change_with_the_image_are_no_visual_tokens(tmp_path, monkeypatch):
    subject = load_subject(SubjectSettings(model=str(build(BUILDS["llava"], tmp_path))), threads=1)
    monkeypatch.setattr(probing, "_inverted", lambda image, box: image)
    with pytest.raises(SubjectError, match="do not change with the image"):
        find_layout(subject)


def test_text_of_a_prefix_model_attends_to_the_left_as_when_it_was_generated(tmp_path):
    """PaliGemma's tokens before the text attend to each other in both directions."""
    subject = load_subject(
        SubjectSettings(model=str(build(WIDE["paligemma"], tmp_path))), threads=1
    )
    encoded = encode(subject, [PICTURES["odd"]], TEXT_SAID)
    marks = encoded.inputs["token_type_ids"][0]
    assert marks.sum() == encoded.n_text
    assert (marks[encoded.roles == VISUAL] == 0).all()
    assert subject.shares_batches
