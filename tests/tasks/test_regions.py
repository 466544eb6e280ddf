import numpy as np
import pytest

from tasks.regions import Region, count_tokens, heat_over, token_boxes, view_of

WHOLE = Region(0, 2, 3, 0, 0, 30, 20)
THUMBNAIL = Region(0, 1, 1, 0, 0, 40, 20)
TILES = (Region(0, 2, 2, 0, 0, 20, 20), Region(0, 2, 2, 20, 0, 40, 20))
OTHER = Region(1, 1, 2, 5, 5, 25, 15)


def test_every_token_has_its_own_box_row_by_row():
    assert token_boxes([WHOLE]).tolist() == [
        [0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10],
        [0, 10, 10, 20], [10, 10, 20, 20], [20, 10, 30, 20],
    ]  # fmt: skip


def test_boxes_follow_the_order_of_the_regions():
    boxes = token_boxes([*TILES, THUMBNAIL])
    assert boxes.shape == (count_tokens([*TILES, THUMBNAIL]), 4) == (9, 4)
    assert boxes[4].tolist() == [20, 0, 30, 10]
    assert boxes[8].tolist() == [0, 0, 40, 20]


def test_a_sample_without_images_has_no_boxes_and_no_picture():
    assert token_boxes([]).shape == (0, 4)
    view = view_of(())
    assert (view.width, view.height, view.panels) == (0, 0, ())
    assert heat_over(view, np.empty(0, np.float32)).size == 0


@pytest.mark.parametrize("box", [(0, 0, 30, 20), (-7.4, 3.2, 81.9, 60.1), (0, 80, 480, 560)])
@pytest.mark.parametrize("grid", [(2, 3), (24, 24), (5, 7)])
def test_the_heat_over_one_grid_is_the_grid(grid, box):
    values = np.random.default_rng(0).random(grid).astype(np.float32)
    heat = heat_over(view_of((Region(0, *grid, *box),)), values.ravel())
    assert heat.tolist() == values.tolist()


def test_a_view_shows_what_the_regions_of_an_image_cover_together():
    view = view_of((Region(0, 1, 1, 10, 20, 30, 50), Region(0, 1, 1, 30, 20, 60, 40)))
    assert view.panels == ((0, (10, 20, 60, 50), 0),)
    assert (view.width, view.height) == (50, 30)
    assert view.regions == (Region(0, 1, 1, 0, 0, 20, 30), Region(0, 1, 1, 20, 0, 50, 20))


def test_the_images_of_a_sample_stand_side_by_side():
    view = view_of((WHOLE, OTHER))
    assert view.panels == ((0, (0, 0, 30, 20), 0), (1, (5, 5, 25, 15), 30))
    assert (view.width, view.height) == (50, 20)
    assert view.regions[1] == Region(1, 1, 2, 30, 0, 50, 10)
    heat = heat_over(view, np.array([0, 0, 0, 0, 0, 0, 7, 8], np.float32))
    assert heat.tolist() == [[0, 0, 0, 7, 8], [0, 0, 0, 0, 0]]


def test_where_a_thumbnail_and_tiles_overlap_the_strongest_token_shows():
    values = np.arange(8, dtype=np.float32)
    view = view_of((THUMBNAIL, *TILES))
    assert heat_over(view, np.array([0, *values], np.float32)).tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
    ]
    assert heat_over(view, np.array([5, *values], np.float32)).tolist() == [
        [5, 5, 5, 5],
        [5, 5, 6, 7],
    ]


def test_the_order_of_overlapping_regions_does_not_matter():
    values = np.arange(8, dtype=np.float32)
    first = heat_over(view_of((THUMBNAIL, *TILES)), np.array([5, *values], np.float32))
    last = heat_over(view_of((*TILES, THUMBNAIL)), np.array([*values, 5], np.float32))
    assert first.tolist() == last.tolist()


def test_negative_activations_are_shown_as_they_are_and_uncovered_places_as_none():
    view = view_of((Region(0, 1, 1, 0, 0, 10, 10), Region(0, 1, 1, 30, 0, 40, 10)))
    assert heat_over(view, np.array([-3, 4], np.float32)).tolist() == [[-3, 0, 0, 4]]
