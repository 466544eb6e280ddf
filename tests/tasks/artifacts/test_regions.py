import numpy as np
import pytest

from neuron_atlas.tasks.artifacts.regions import (
    Region,
    activation_map,
    count_tokens,
    finest_grids,
    map_to_tokens,
    token_boxes,
    view_of,
)

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
    assert activation_map(view, np.empty(0, np.float32)).size == 0


@pytest.mark.parametrize("box", [(0, 0, 30, 20), (-7.4, 3.2, 81.9, 60.1), (0, 80, 480, 560)])
@pytest.mark.parametrize("grid", [(2, 3), (24, 24), (5, 7)])
def test_the_heat_over_one_grid_is_the_grid(grid, box):
    values = np.random.default_rng(0).random(grid).astype(np.float32)
    heat = activation_map(view_of((Region(0, *grid, *box),)), values.ravel())
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
    heat = activation_map(view, np.array([0, 0, 0, 0, 0, 0, 7, 8], np.float32))
    assert heat.tolist() == [[0, 0, 0, 7, 8], [0, 0, 0, 0, 0]]


def test_where_a_thumbnail_and_tiles_overlap_the_strongest_token_shows():
    values = np.arange(8, dtype=np.float32)
    view = view_of((THUMBNAIL, *TILES))
    assert activation_map(view, np.array([0, *values], np.float32)).tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
    ]
    assert activation_map(view, np.array([5, *values], np.float32)).tolist() == [
        [5, 5, 5, 5],
        [5, 5, 6, 7],
    ]


def test_the_order_of_overlapping_regions_does_not_matter():
    values = np.arange(8, dtype=np.float32)
    first = activation_map(view_of((THUMBNAIL, *TILES)), np.array([5, *values], np.float32))
    last = activation_map(view_of((*TILES, THUMBNAIL)), np.array([*values, 5], np.float32))
    assert first.tolist() == last.tolist()


def test_negative_activations_are_shown_as_they_are_and_uncovered_places_as_none():
    view = view_of((Region(0, 1, 1, 0, 0, 10, 10), Region(0, 1, 1, 30, 0, 40, 10)))
    assert activation_map(view, np.array([-3, 4], np.float32)).tolist() == [[-3, 0, 0, 4]]


def test_cells_over_a_grid_that_they_divide_are_repeated_over_its_tokens():
    region = Region(0, 4, 4, 0, 0, 80, 40)
    cells = np.array([[1, 2], [3, 4]], np.float32)
    tokens = map_to_tokens(view_of((region,)), [cells])
    assert tokens.reshape(4, 4).tolist() == np.kron(cells, np.ones((2, 2))).tolist()


def test_a_token_across_cells_is_their_mean_by_how_much_of_it_lies_in_each():
    """Two tokens over three cells: the middle one is shared by half."""
    tokens = map_to_tokens(
        view_of((Region(0, 1, 2, 0, 0, 30, 10),)), [np.array([[3.0, 6.0, 12.0]])]
    )
    assert tokens == pytest.approx([(2 * 3 + 6) / 3, (6 + 2 * 12) / 3])


def test_cells_as_fine_as_the_tokens_are_the_tokens_whatever_the_box():
    for box in ((0, 0, 30, 20), (-7.4, 3.2, 81.9, 60.1)):
        view = view_of((Region(0, 5, 7, *box),))
        assert finest_grids(view) == ((5, 7),)
        values = np.random.default_rng(0).random((5, 7)).astype(np.float32)
        assert map_to_tokens(view, [values]) == pytest.approx(values.ravel(), abs=0.04)


def test_tiles_and_thumbnail_of_an_image_are_read_off_the_same_cells():
    view = view_of((*TILES, THUMBNAIL))
    assert finest_grids(view) == ((2, 4),)
    cells = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    tokens = map_to_tokens(view, [cells])
    assert tokens.tolist() == [1, 2, 5, 6, 3, 4, 7, 8, 4.5]


def test_each_image_is_read_off_its_own_cells():
    view = view_of((WHOLE, OTHER))
    assert finest_grids(view) == ((2, 3), (1, 2))
    tokens = map_to_tokens(view, [np.full((1, 1), 2.0), np.array([[5.0, 9.0]])])
    assert tokens.tolist() == [2] * 6 + [5, 9]


def test_a_sample_without_images_has_no_values():
    view = view_of(())
    assert finest_grids(view) == ()
    assert map_to_tokens(view, []).shape == (0,)
