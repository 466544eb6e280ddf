from typing import get_args

import numpy as np
import pytest
from PIL import Image

from neuron_atlas.tasks.explain.draw import GAP, LEGEND, Render, draw_plain, draw_view
from tests.loopback.looking import framed, heat, lit

SIZE = 512
HALF = (SIZE - GAP) // 2
GRID = 6
RENDERS = get_args(Render)


def grid(width: float, height: float, columns: int = GRID, rows: int = GRID) -> np.ndarray:
    """The boxes of a patch grid over a whole view, row by row."""
    return np.array(
        [
            (c * width / columns, r * height / rows, (c + 1) * width / columns,
             (r + 1) * height / rows)
            for r in range(rows) for c in range(columns)
        ]
    )  # fmt: skip


def hot_at(*cells: tuple[int, int, float]) -> np.ndarray:
    activations = np.zeros((GRID, GRID), dtype=np.float32)
    for row, column, level in cells:
        activations[row, column] = level
    return activations.ravel()


def noise(width: int = 240, height: int = 240) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(60, 190, (height, width, 3), dtype=np.uint8))


def gray(side: int = 240) -> Image.Image:
    return Image.new("RGB", (side, side), (90, 90, 90))


def drawn(render: Render, view: Image.Image, activations: np.ndarray, size: int = SIZE) -> Image:
    return draw_view(render, view, grid(*view.size), activations, size)


def cell(pixels: np.ndarray, row: int, column: int) -> np.ndarray:
    """The inner pixels of a patch of a square picture, away from any frame around its neighbour."""
    side = pixels.shape[1] / GRID
    (top, bottom), (left, right) = (
        (round(place * side) + 4, round((place + 1) * side) - 4) for place in (row, column)
    )
    return pixels[top:bottom, left:right]


def halves(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The plain and the heated half of a square view."""
    pixels = np.asarray(picture, dtype=np.float32)[:-LEGEND]
    return pixels[:, :HALF], pixels[:, HALF + GAP :]


@pytest.mark.parametrize("render", RENDERS)
@pytest.mark.parametrize(
    "size", [(192, 192), (640, 480), (333, 1000), (2000, 300), (5, 7), (3000, 2900)]
)
@pytest.mark.parametrize("activations", [hot_at((2, 3, 10.0)), hot_at()])
def test_a_picture_fits_into_one_tile_whatever_is_drawn(render, size, activations):
    picture = drawn(render, noise(*size), activations)
    assert max(picture.size) <= SIZE
    assert max(picture.size) >= SIZE - 24 or max(size) / min(size) > 3
    assert picture.mode == "RGB"


@pytest.mark.parametrize(
    ("size", "layout"), [((240, 240), "beside"), ((480, 640), "beside"), ((640, 400), "above")]
)
def test_the_plain_picture_stands_where_both_are_largest(size, layout):
    width, height = drawn("heat", noise(*size), hot_at((1, 1, 9.0))).size
    height -= LEGEND
    across, down = (
        ((width - GAP) / 2, height) if layout == "beside" else (width, (height - GAP) / 2)
    )
    assert across / down == pytest.approx(size[0] / size[1], rel=0.02)


def test_heat_is_where_the_neuron_is_active_over_a_gray_copy_and_the_plain_half_is_untouched():
    view = noise()
    plain, heated = halves(drawn("heat", view, hot_at((1, 4, 10.0), (3, 0, 4.0))))
    assert np.array_equal(plain, np.asarray(draw_plain(view, HALF), dtype=np.float32))
    for row in range(GRID):
        for column in range(GRID):
            inner = cell(heated, row, column)
            has_color = np.ptp(inner, axis=-1).max() > 20
            assert has_color == ((row, column) in {(1, 4), (3, 0)})
            assert has_color or np.ptp(inner, axis=-1).max() == 0


BASES = {
    "blue": (0, 0, 255), "cyan": (0, 255, 255), "white": (255, 255, 255), "black": (0, 0, 0),
    "red": (255, 0, 0), "yellow": (255, 255, 0), "purple": (126, 3, 168), "gray": (128, 128, 128),
}  # fmt: skip


def heated_levels(base: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The colors [11, 3] of levels 0 to 10 over a picture of one color, and those of its legend."""
    colors = []
    picture = gray()
    for first in (0, 6):
        view = Image.new("RGB", (240, 240), base)
        shown = min(6, 11 - first)
        picture = drawn("heat", view, hot_at(*((0, at, float(first + at)) for at in range(shown))))
        heated = halves(picture)[1]
        colors += [np.median(cell(heated, 0, at), axis=(0, 1)) for at in range(shown)]
    pixels = np.asarray(picture, dtype=np.float32)
    middles = [round((level + 0.15) * picture.width / 11) for level in range(11)]
    return np.array(colors), np.array([pixels[-3, middle] for middle in middles])


@pytest.mark.parametrize("base", BASES)
def test_a_level_has_the_color_of_the_legend_whatever_the_picture_shows_there(base):
    seen, legend = heated_levels(BASES[base])
    assert np.abs(seen[1:] - legend[1:]).max() <= 17
    # The picture adds the same gray to all channels, so hues are those of the legend.
    hues, legend_hues = (colors - colors.mean(axis=1, keepdims=True) for colors in (seen, legend))
    assert np.abs(hues - legend_hues).max() <= 1
    distances = np.linalg.norm(hues[:, None] - legend_hues[None], axis=-1)
    assert distances.argmin(axis=1).tolist() == list(range(11))
    nearest = np.linalg.norm(seen[:, None] - legend[None], axis=-1).argmin(axis=1)
    assert nearest[10] == 10
    assert np.abs(nearest - np.arange(11)).max() <= 1


@pytest.mark.parametrize("base", BASES)
def test_levels_are_told_apart_and_grow_from_purple_to_yellow(base):
    seen, _ = heated_levels(BASES[base])
    steps = np.linalg.norm(np.diff(seen, axis=0), axis=1)
    assert steps.min() > 20
    assert (np.diff(seen[1:, 1]) > 0).all()
    assert (np.diff((seen[:, :2].mean(axis=1) - seen[:, 2])[1:]) > 0).all()


def test_over_a_middle_gray_the_colors_are_exactly_those_of_the_legend():
    seen, legend = heated_levels((128, 128, 128))
    assert np.abs(seen - legend).max() <= 1


def test_the_picture_shows_through_the_strongest_heat():
    view = noise().convert("L").convert("RGB")
    halved = halves(drawn("heat", view, np.full(GRID**2, 10.0)))
    plain, heated = (cell(half, 3, 3)[..., 1].ravel() for half in halved)
    assert np.corrcoef(plain, heated)[0, 1] > 0.98
    assert heated.std() > 0.12 * plain.std()


def test_the_strongest_patch_is_framed():
    heated = halves(drawn("heat", gray(), hot_at((2, 3, 5.0), (4, 1, 4.0))))[1]
    side = HALF // GRID
    middle = 2 * side + side // 2
    assert heated[middle, 3 * side - 1].tolist() == [255] * 3
    assert heated[middle, 3 * side - 2].tolist() == [0] * 3
    assert heated[4 * side + side // 2, side - 1].tolist() == [109] * 3


def test_a_silent_neuron_leaves_no_heat():
    silent = np.full(GRID**2, np.nan)
    silent[:9] = -2
    silent[9:12] = 0.4
    heated = halves(drawn("heat", noise(), silent))[1]
    assert np.ptp(heated, axis=-1).max() == 0


def test_a_mask_leaves_light_where_the_neuron_is_active():
    view = gray()
    picture = drawn("mask", view, hot_at((1, 4, 10.0), (3, 0, 4.0), (3, 1, 2.0)))
    pixels = np.asarray(picture, dtype=np.float32)[:-LEGEND]
    light = [cell(pixels, *at).mean() for at in ((0, 0), (3, 1), (3, 0), (1, 4))]
    assert light == sorted(light)
    assert light[0] < 0.2 * 90
    assert light[-1] == 90
    assert light[1] - light[0] > 10


def test_a_crop_is_of_the_strongest_place_with_what_is_connected_to_it():
    view = Image.new("RGB", (240, 240), (40, 70, 215))
    view.paste((214, 36, 36), (80, 120, 160, 160))
    view.paste((40, 150, 60), (0, 0, 40, 40))
    picture = drawn("crop", view, hot_at((3, 2, 10.0), (3, 3, 6.0), (0, 0, 9.0), (3, 4, 2.0)))
    pixels = np.asarray(picture, dtype=np.float32)
    assert picture.size == (SIZE, SIZE)
    within, outside = framed(picture)
    assert np.abs(within - (214, 36, 36)).max() < 60
    # Two patches wide and one high, within a window of 1.6 times their width.
    assert len(within) * 3 == pytest.approx((SIZE / 1.6) ** 2 / 2, rel=0.05)
    assert np.abs(pixels - (40, 150, 60)).sum(axis=2).min() > 60
    assert np.abs(outside - (40, 70, 215)).max() < 60


def test_a_crop_at_the_border_stays_within_the_picture():
    view = Image.new("RGB", (240, 240), (214, 36, 36))
    picture = drawn("crop", view, hot_at((5, 5, 10.0), (5, 4, 8.0)))
    pixels = np.asarray(picture, dtype=np.float32)
    assert picture.size == (SIZE, SIZE)
    assert (np.abs(pixels[:5, :5] - (214, 36, 36)) < 5).all()
    assert np.abs(framed(picture)[0] - (214, 36, 36)).max() < 60


def test_a_crop_of_a_picture_that_leaves_the_neuron_silent_is_the_whole_without_a_frame():
    view = noise()
    assert drawn("crop", view, hot_at()).tobytes() == draw_plain(view, SIZE).tobytes()
    assert len(framed(drawn("crop", gray(), hot_at()))[0]) == 0


def test_of_boxes_that_overlap_the_highest_shows():
    boxes = np.array([(0, 0, 240, 240), (0, 0, 120, 120), (60, 60, 100, 100)], dtype=float)
    picture = draw_view("mask", gray(), boxes, np.array([4.0, 10.0, 1.0]), SIZE)
    pixels = np.asarray(picture, dtype=np.float32)[:-LEGEND]
    assert pixels[170, 170].tolist() == [90] * 3
    assert pixels[400, 400].mean() == pytest.approx(90 * (0.18 + 0.82 * 0.4**0.75), abs=1)


@pytest.mark.parametrize("cells", [(3, 6), (24, 24), (5, 7), (700, 700)])
@pytest.mark.parametrize("render", RENDERS)
def test_any_grid_is_laid_over_any_picture(render, cells):
    activations = np.zeros(cells, dtype=np.float32)
    activations[-1, -1] = 10
    view = Image.new("L", (90, 45), 128)
    boxes = grid(90, 45, *cells[::-1])
    assert draw_view(render, view, boxes, activations.ravel(), 200).width <= 200


@pytest.mark.parametrize("size", [(240, 240), (400, 200)])
def test_who_looks_at_the_heat_finds_it_where_the_activation_is(size):
    _, found = heat(drawn("heat", noise(*size), hot_at((4, 2, 9.0), (0, 5, 3.0))))
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert (row * GRID // found.shape[0], column * GRID // found.shape[1]) == (4, 2)


def test_who_looks_at_a_mask_sees_what_is_lit():
    view = Image.new("RGB", (240, 240), (244, 244, 244))
    view.paste((40, 70, 215), (80, 120, 120, 160))
    seen, darkened = lit(drawn("mask", view, hot_at((3, 2, 8.0))))
    assert np.abs(np.median(seen, axis=0) - (40, 70, 215)).max() < 50
    assert np.abs(np.median(darkened, axis=0) - 244).max() < 8
