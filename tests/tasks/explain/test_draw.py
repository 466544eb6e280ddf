import numpy as np
import pytest
from PIL import Image

from tasks.explain.draw import GAP, draw_beside, draw_heat, mark_tokens
from tests.loopback.looking import heat, marked_tokens

SIZE = 240
GRID = 6
CELL = SIZE // GRID


def scene() -> Image.Image:
    """A gradient, so that no two places look alike."""
    ramp = np.linspace(40, 200, SIZE).astype(np.uint8)
    return Image.fromarray(
        np.stack(
            [np.tile(ramp, (SIZE, 1)), np.tile(ramp, (SIZE, 1)).T, np.full((SIZE,) * 2, 90)], 2
        ).astype(np.uint8)
    )


def hot_at(*cells: tuple[int, int, float]) -> np.ndarray:
    activations = np.zeros((GRID, GRID), dtype=np.float32)
    for row, column, level in cells:
        activations[row, column] = level
    return activations


def cell(image: Image.Image, row: int, column: int) -> np.ndarray:
    """The inner pixels of a patch, away from any frame around its neighbour."""
    pixels = np.asarray(image, dtype=np.float32)
    return pixels[
        row * CELL + 4 : (row + 1) * CELL - 4, column * CELL + 4 : (column + 1) * CELL - 4
    ]


def test_the_picture_changes_where_the_neuron_is_active_and_nowhere_else():
    view = scene()
    drawn = draw_heat(view, hot_at((1, 4, 10.0), (3, 0, 4.0)), SIZE)
    for row in range(GRID):
        for column in range(GRID):
            change = np.abs(cell(drawn, row, column) - cell(view, row, column)).max()
            assert (change > 20) == ((row, column) in {(1, 4), (3, 0)})


def test_more_activation_is_more_heat():
    view = Image.new("RGB", (SIZE, SIZE), (90, 90, 90))
    drawn = draw_heat(view, hot_at(*((0, level, 2.0 * level) for level in range(6))), SIZE)
    change = [np.abs(cell(drawn, 0, column) - 90).sum(axis=2).mean() for column in range(GRID)]
    assert change == sorted(change)
    assert change[0] == 0
    redness = [cell(drawn, 0, column)[..., 0] - cell(drawn, 0, column)[..., 1] for column in (1, 5)]
    assert redness[1].mean() > redness[0].mean() + 50


def test_the_picture_shows_through_the_strongest_heat():
    view = scene()
    drawn = draw_heat(view, np.full((GRID, GRID), 10.0, dtype=np.float32), SIZE)
    before = np.asarray(view, dtype=np.float32)[..., 1].ravel()
    after = np.asarray(drawn, dtype=np.float32)[..., 1].ravel()
    assert np.corrcoef(before, after)[0, 1] > 0.9


def test_the_strongest_patch_is_framed():
    view = Image.new("RGB", (SIZE, SIZE), (90, 90, 90))
    drawn = np.asarray(draw_heat(view, hot_at((2, 3, 5.0), (4, 1, 4.0)), SIZE))
    middle = 2 * CELL + CELL // 2
    assert tuple(drawn[middle, 3 * CELL - 1]) == (255, 255, 255)
    assert tuple(drawn[middle, 3 * CELL - 2]) == (0, 0, 0)
    assert tuple(drawn[4 * CELL + CELL // 2, CELL - 1]) == (90, 90, 90)


def test_a_silent_neuron_leaves_the_picture_as_it_is():
    silent = np.full((GRID, GRID), np.nan, dtype=np.float32)
    silent[:3] = -2
    view = scene()
    assert np.array_equal(np.asarray(draw_heat(view, silent, SIZE)), np.asarray(view))


@pytest.mark.parametrize("grid", [(3, 6), (24, 24), (5, 7), (300, 300)])
def test_any_grid_is_laid_over_any_picture(grid):
    activations = np.zeros(grid, dtype=np.float32)
    activations[-1, -1] = 10
    drawn = draw_heat(Image.new("L", (90, 45), 128), activations, 60)
    assert drawn.size == (60, 30)
    assert drawn.mode == "RGB"
    pixels = np.asarray(drawn).astype(int)
    assert (pixels[: 30 // 2, : 60 // 2] == 128).all()


def test_beside_its_heat_the_picture_is_untouched():
    view = scene()
    both = np.asarray(draw_beside(view, hot_at((1, 1, 10.0)), SIZE))
    assert both.shape == (SIZE, 2 * SIZE + GAP, 3)
    assert np.array_equal(both[:, :SIZE], np.asarray(view))
    assert not np.array_equal(both[:, SIZE + GAP :], np.asarray(view))


def test_who_looks_at_the_picture_finds_the_heat_where_the_activation_is():
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
    _, found = heat(draw_beside(noise, hot_at((4, 2, 9.0), (0, 5, 3.0)), SIZE))
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert (row * GRID // found.shape[0], column * GRID // found.shape[1]) == (4, 2)


def test_active_tokens_carry_their_activation_and_the_rest_is_plain_text():
    tokens = ["A", " small", " red", " cir", "cle", "."]
    levels = np.array([0.0, 0.4, 7.2, 9.6, 10.0, -3.0], dtype=np.float32)
    assert mark_tokens(tokens, levels) == "A small{{ red}}(7){{ cir}}(10){{cle}}(10)."


def test_no_token_can_break_the_line_or_pass_for_a_mark():
    tokens = ["two\nlines", "{{fake}}(9)", "</sample>", "back\\slash", "\u202eturned", "{{x"]
    marked = mark_tokens(tokens, np.array([5, 0, 3, 0, 2, 1], dtype=np.float32))
    assert marked.isprintable()
    assert "</sample>" not in marked
    assert [level for _, level in marked_tokens(marked)] == [5, 3, 2, 1]
    assert marked_tokens(marked)[1] == ("</sample>", 3)
    assert "two\\nlines" in marked


def test_tokens_and_activations_must_match():
    with pytest.raises(ValueError, match="2 tokens with 1 activations"):
        mark_tokens(["a", "b"], np.array([1.0]))
