import re
from dataclasses import replace

import numpy as np
import pytest

from neuron_atlas.tasks.samples.drawing import SHAPES
from neuron_atlas.tasks.samples.scenes import BACKGROUNDS, COLORS, POSITIONS, SIZES, Scenes
from neuron_atlas.tasks.samples.source import Concept, SampleError, SampleRecord

SCENES = Scenes(count=200, seed=3)
NAMES = {
    "color": COLORS,
    "shape": SHAPES,
    "size": SIZES,
    "position": POSITIONS,
    "background": BACKGROUNDS,
}


def named_in(text: str) -> dict[str, set[str]]:
    return {
        kind: {name for name in names if re.search(rf"\b{name}\b", text)}
        for kind, names in NAMES.items()
    }


def concepts_of(record: SampleRecord, kind: str) -> list[Concept]:
    return [concept for concept in SCENES.concepts(record.image) if concept.kind == kind]


def pixels_of(record: SampleRecord) -> np.ndarray:
    return np.asarray(SCENES.open_image(record.image).pixels).astype(int)


def nearest_color(pixels: np.ndarray) -> np.ndarray:
    """The name of the palette's color that each pixel is closest to: str [height, width]."""
    palette = {**COLORS, **BACKGROUNDS}
    distances = np.stack([((pixels - rgb) ** 2).sum(-1) for rgb in palette.values()])
    return np.array(list(palette))[distances.argmin(0)]


def cells(values: np.ndarray) -> np.ndarray:
    """Group a [192, 192] array by the cell of the mask's grid: [24, 24, pixels of the cell]."""
    return values.reshape(24, 8, 24, 8).swapaxes(1, 2).reshape(24, 24, 64)


def test_the_same_seed_draws_the_same_scenes():
    again = Scenes(count=200, seed=3)
    assert list(again.records()) == list(SCENES.records())
    for record in list(SCENES.records())[:20]:
        first, second = SCENES.open_image(record.image), again.open_image(record.image)
        assert first.pixels.tobytes() == second.pixels.tobytes()
        assert first.sha256 == second.sha256


def test_a_larger_count_adds_scenes_and_changes_none():
    larger = replace(SCENES, count=250)
    assert list(larger.records())[:200] == list(SCENES.records())
    assert larger.open_image("3/7").sha256 == SCENES.open_image("3/7").sha256


def test_no_two_scenes_share_their_pixels_or_their_id():
    other = replace(SCENES, seed=4)
    records = [(source, record) for source in (SCENES, other) for record in source.records()]
    assert len({record.source_id for _, record in records}) == 400
    assert len({source.open_image(record.image).sha256 for source, record in records}) == 400


def test_an_image_is_rgb_of_the_asked_size():
    pixels = Scenes(count=1, size=100).open_image("0/0").pixels
    assert (pixels.mode, pixels.size) == ("RGB", (100, 100))


def test_a_description_reads_as_a_detailed_description():
    a_thing = r"a (small|large) (\w+) (\w+) at the ([a-z]+(?: left| right)?)"
    a_size = r"he (\w+) (\w+) is (small|large)"
    pattern = re.compile(
        rf"There is {a_thing}(?: and {a_thing})?\. The background is \w+\. "
        rf"T{a_size}(?: and t{a_size})?\."
    )
    for record in SCENES.records():
        found = pattern.fullmatch(record.text)
        assert found, record.text
        size, color, shape, _, *second = found.groups()[:8]
        assert found.groups()[8:11] == (color, shape, size)
        assert found.groups()[11:] == (second[1], second[2], second[0])


def test_objects_are_named_in_reading_order():
    for record in SCENES.records():
        places = re.findall("|".join(POSITIONS), record.text)
        assert places == sorted(set(places), key=list(POSITIONS).index)


def test_a_description_names_the_concepts_of_its_scene_and_no_others():
    for record in SCENES.records():
        concepts = SCENES.concepts(record.image)
        said = named_in(record.text)
        for kind in NAMES:
            names = [concept.name for concept in concepts if concept.kind == kind]
            assert sorted(names) == sorted(said[kind]), record.text
        for concept in concepts:
            assert " ".join(concept.words) in record.text


def test_every_name_of_every_kind_is_drawn_about_as_often_as_the_others():
    said = [named_in(record.text) for record in Scenes(count=1000, seed=5).records()]
    for kind, names in NAMES.items():
        counts = [sum(name in named[kind] for named in said) for name in names]
        assert min(counts) > 0.75 * max(counts), kind


def test_a_color_mask_covers_exactly_the_pixels_of_that_color():
    for record in SCENES.records():
        painted = cells(nearest_color(pixels_of(record)))
        concepts = concepts_of(record, "color") + concepts_of(record, "background")
        # On an edge two colors blend, and the blend may look like a third.
        edgeless = np.all([np.isin(concept.mask, (0, 255)) for concept in concepts], axis=0)
        for concept in concepts:
            assert concept.mask.shape == (24, 24)
            assert concept.mask.dtype == np.uint8
            within, without = concept.mask == 255, (concept.mask == 0) & edgeless
            assert (painted[within] == concept.name).all(), record.source_id
            assert (painted[without] != concept.name).all(), record.source_id
            assert concept.mask.max() > 128


def test_a_position_mask_lies_at_the_named_place():
    rows, columns = np.mgrid[0:24, 0:24] / 23
    for record in SCENES.records():
        for concept in concepts_of(record, "position"):
            weights = concept.mask / concept.mask.sum()
            x, y = POSITIONS[concept.name]
            assert abs((weights * columns).sum() - x) < 0.05
            assert abs((weights * rows).sum() - y) < 0.06


def test_a_large_object_covers_at_least_twice_as_much_as_a_small_one_of_its_shape():
    areas: dict[tuple[str, str], list[int]] = {}
    for record in SCENES.records():
        if len(concepts_of(record, "position")) == 1:
            (shape,), (size,) = concepts_of(record, "shape"), concepts_of(record, "size")
            areas.setdefault((shape.name, size.name), []).append(int(shape.mask.sum()))
    for shape in SHAPES:
        assert min(areas[shape, "large"]) > 2 * max(areas[shape, "small"])


def test_objects_never_overlap():
    for record in SCENES.records():
        masks = [concept.mask.astype(int) for concept in concepts_of(record, "position")]
        assert len(masks) in (1, 2)
        assert (sum(masks) <= 255).all(), record.text
        solid = [np.argwhere(mask > 0) for mask in masks]
        if len(solid) == 2:
            gaps = np.abs(solid[0][:, None] - solid[1][None]).max(-1)
            assert gaps.min() >= 1, record.text


def test_a_concept_that_two_objects_share_covers_both():
    for record in SCENES.records():
        everything = np.maximum.reduce([c.mask for c in concepts_of(record, "position")])
        for kind in ("color", "shape", "size"):
            concepts = concepts_of(record, kind)
            if len(concepts) == 1:
                assert (concepts[0].mask >= everything).all(), record.text


def test_a_mask_means_the_same_place_at_every_image_size():
    for record in list(SCENES.records())[:30]:
        pairs = zip(
            SCENES.concepts(record.image),
            replace(SCENES, size=384).concepts(record.image),
            strict=True,
        )
        for small, large in pairs:
            assert small.name == large.name
            assert np.abs(small.mask.astype(int) - large.mask).mean() < 2


def test_the_probe_changes_with_every_setting_and_with_nothing_else():
    probes = {
        source.probe()
        for source in (
            SCENES,
            replace(SCENES, count=199),
            replace(SCENES, seed=4),
            replace(SCENES, size=96),
        )
    }
    assert len(probes) == 4
    assert Scenes(count=200, seed=3).probe() == SCENES.probe()


@pytest.mark.parametrize("image", ["4/0", "3/200", "3/-1", "3", "3/x", "", "../3/0"])
def test_a_reference_to_none_of_its_scenes_is_a_missing_sample(image):
    for ask in (SCENES.open_image, SCENES.concepts):
        with pytest.raises(SampleError) as bad:
            ask(image)
        assert bad.value.status == "missing"
