import numpy as np
import pytest

from neuron_atlas.tasks.artifacts import CONCEPT_GRID
from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.concepts.presence import (
    index_words,
    patch_coverage,
    patch_coverages,
    token_words,
    words_of,
)
from neuron_atlas.tasks.samples.catalog import Sample, TrueConcept
from tests.one_process import Described

WHOLE = (0.0, 0.0, 120.0, 60.0)


def sample(
    tokens: tuple[str, ...] = ("x",),
    grid: tuple[int, int] = (4, 6),
    view: tuple[float, float, float, float] = WHOLE,
) -> Sample:
    """A sample of 120 x 60 pixels."""
    regions = (Region(0, *grid, *view),)
    return Sample(0, "0", ("0",), "".join(tokens), tokens, regions, width=120, height=60)


def concept(mask: np.ndarray) -> TrueConcept:
    return TrueConcept("red", "color", ("red",), mask.astype(np.float32))


def left_half() -> TrueConcept:
    mask = np.zeros((CONCEPT_GRID, CONCEPT_GRID))
    mask[:, : CONCEPT_GRID // 2] = 1
    return concept(mask)


def covered(concept: TrueConcept, sample: Sample) -> np.ndarray:
    (region,) = sample.regions
    return patch_coverage(concept, sample).reshape(region.rows, region.columns)


def area(coverage: np.ndarray, sample: Sample) -> float:
    """Pixels that the concept covers in the view, by the coverage of its patches."""
    (region,) = sample.regions
    return float(coverage.mean() * (region.right - region.left) * (region.bottom - region.top))


@pytest.mark.parametrize("grid", [(24, 24), (4, 6), (7, 5), (30, 1)])
def test_whatever_the_patch_grid_the_covered_area_is_the_masks(grid):
    mask = np.random.default_rng(0).random((CONCEPT_GRID, CONCEPT_GRID))
    seen = sample(grid=grid)
    assert area(covered(concept(mask), seen), seen) == pytest.approx(mask.mean() * 120 * 60)


def test_on_the_masks_own_grid_coverage_is_the_mask():
    mask = np.random.default_rng(1).random((CONCEPT_GRID, CONCEPT_GRID))
    seen = covered(concept(mask), sample(grid=(CONCEPT_GRID, CONCEPT_GRID)))
    np.testing.assert_allclose(seen, mask, rtol=1e-5)


def test_patches_are_row_major_and_a_patch_on_the_edge_is_covered_in_part():
    seen = covered(left_half(), sample(grid=(2, 5)))
    assert seen.tolist() == [[1, 1, pytest.approx(0.5), 0, 0]] * 2


def test_a_centre_crop_shows_only_the_middle_of_the_mask():
    seen = sample(grid=(4, 4), view=(30.0, 0.0, 90.0, 60.0))
    coverage = covered(left_half(), seen)
    assert coverage.tolist() == [[1, 1, 0, 0]] * 4
    assert area(coverage, seen) == pytest.approx(30 * 60)


def test_crops_that_tile_the_image_share_out_the_area_between_them():
    mask = np.random.default_rng(2).random((CONCEPT_GRID, CONCEPT_GRID))
    crops = [(0.0, 0.0, 50.0, 60.0), (50.0, 0.0, 120.0, 25.0), (50.0, 25.0, 120.0, 60.0)]
    views = [sample(grid=(3, 5), view=crop) for crop in crops]
    total = sum(area(covered(concept(mask), view), view) for view in views)
    assert total == pytest.approx(mask.mean() * 120 * 60)


def test_what_lies_beyond_the_image_shows_nothing():
    seen = sample(grid=(3, 3), view=(-120.0, -60.0, 240.0, 120.0))
    everywhere = concept(np.ones((CONCEPT_GRID, CONCEPT_GRID)))
    assert covered(everywhere, seen).tolist() == [[0, 0, 0], [0, pytest.approx(1), 0], [0, 0, 0]]


def test_coverage_is_shared_and_so_cannot_be_written_to():
    red, seen = left_half(), sample()
    assert patch_coverage(red, seen) is patch_coverage(red, seen)
    with pytest.raises(ValueError, match="read-only"):
        patch_coverage(red, seen)[0] = 9


def test_two_concepts_of_one_name_keep_their_own_masks():
    right_half = concept(left_half().mask[:, ::-1])
    assert (
        patch_coverage(left_half(), sample()).tolist()
        != patch_coverage(right_half, sample()).tolist()
    )


def test_a_colour_covers_the_patches_where_it_is_in_the_image(scenes: Described):
    catalog = scenes.catalog()
    reds = 0
    for sample_id, seen in catalog.samples.items():
        pixels = np.asarray(catalog.open_view(sample_id).resize((8, 8)), dtype=int).reshape(-1, 3)
        redness = pixels[:, 0] - pixels[:, 1:].mean(1)
        for truth in catalog.concepts(sample_id):
            if truth.name == "red":
                reds += 1
                coverage = patch_coverage(truth, seen)
                assert redness[coverage.argmax()] > np.median(redness[coverage == 0]) + 20
    assert reds >= 3


def test_every_patch_of_a_scene_is_background_or_an_object(scenes: Described):
    catalog = scenes.catalog()
    for sample_id, seen in catalog.samples.items():
        colors, background = (
            sum(patch_coverage(t, seen) for t in catalog.concepts(sample_id) if t.kind == kind)
            for kind in ("color", "background")
        )
        np.testing.assert_allclose(colors + background, 1, atol=0.03)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("A", " red", " circle", "."), ("a", "red", "circle", "")),
        (("A", " re", "d", " cir", "cle"), ("a", "red", "red", "circle", "circle")),
        ((" a red", " circle"), ("a", "circle")),
        (("The", " dog", "'", "s", " tail"), ("the", "dog's", "dog's", "dog's", "tail")),
        (("Gr", "o", "ß", "e", " 漢", "", "字", "!"), ("grosse",) * 4 + ("漢字",) * 3 + ("",)),
        (("caf", "é", "", " 🦓", "", "", "", " x"), ("café",) * 3 + ("",) * 4 + ("x",)),
        (("\n", " ", "x_y", "..."), ("", "", "x", "")),
        ((), ()),
    ],
)
def test_every_token_belongs_to_the_word_that_it_is_a_part_of(tokens, words):
    assert token_words(sample(tokens)) == words


def test_words_are_casefolded_and_keep_their_apostrophes():
    assert words_of("The DOG's  Größe: 2.5 m!") == ["the", "dog's", "grösse", "2", "5", "m"]
    assert words_of("don\u2019t") == ["don\u2019t"]
    assert words_of(" -- ") == []


def test_concepts_of_many_samples_are_covered_as_each_alone(scenes: Described):
    catalog = scenes.catalog()
    ids = sorted(catalog.samples)[:6]
    pairs = [(truth, catalog[number]) for number in ids for truth in catalog.concepts(number)]
    pairs += [(left_half(), sample(grid=(4, 6))), (left_half(), sample(grid=(7, 5)))] * 100
    found = {}
    for numbers, coverages in patch_coverages(pairs):
        found |= dict(zip(numbers.tolist(), coverages, strict=True))
    assert sorted(found) == list(range(len(pairs)))
    for number, pair in enumerate(pairs):
        np.testing.assert_array_equal(found[number], patch_coverage(*pair))


def test_words_of_many_texts_are_those_of_each_alone():
    pieces = [("A dog", "'s b", "one", "", ", n", "o."), (), ("' ' don", "\u2019t", "_x_", "\n")]
    pieces += [("Gr\u00f6\u00dfe", " 2", ".5", " \u4e2d\u6587"), ("",), ("x", "", "y z")]
    samples = [sample(tokens) for tokens in pieces]
    index = index_words(samples)
    names = [*index.names, ""]
    for place, one in enumerate(samples):
        words, tokens = (
            [names[word] for word in values[bounds[place] : bounds[place + 1]].tolist()]
            for values, bounds in (
                (index.texts, index.text_offsets),
                (index.tokens, index.token_offsets),
            )
        )
        assert words == words_of(one.text)
        assert tuple(tokens) == token_words(one)
