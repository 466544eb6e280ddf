import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from neuron_atlas.tasks.report.heat import heat_map, save_view
from neuron_atlas.tasks.report.palette import heat_colours
from tests.tasks.report.synthetic import catalog, sample


def opened(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.parametrize("shape", [(8, 8), (24, 24), (3, 7)])
def test_a_heat_map_has_a_pixel_for_each_patch(shape):
    tens = np.linspace(0, 10, shape[0] * shape[1]).reshape(shape)
    assert (opened(heat_map(tens)) == heat_colours(tens / 10)).all()


@pytest.mark.parametrize(
    ("image", "size"),
    [("640x480", (320, 240)), ("480x640", (240, 320)), ("48x48", (48, 48))],
)
def test_a_view_is_saved_small_in_its_own_proportions(tmp_path, image, size):
    view = save_view(catalog(sample(7, image=image)), 7, tmp_path)
    assert (view.path, view.width, view.height) == ("images/7.jpg", *size)
    written = Image.open(tmp_path / view.path)
    assert (written.format, written.size) == ("JPEG", size)


def test_a_view_shows_what_the_patch_grid_covers(tmp_path):
    # The source's images run from black at the top to white at the bottom.
    whole = catalog(sample(0, image="100x100", view=(0, 80, 20, 100)))
    view = save_view(whole, 0, tmp_path)
    pixels = np.asarray(Image.open(tmp_path / view.path).convert("L"))
    assert pixels.shape == (20, 20)
    assert pixels.min() > 190


def test_what_no_longer_opens_is_a_gap_that_says_why(tmp_path):
    lost = catalog(sample(0, image="gone.png"))
    assert save_view(lost, 0, tmp_path).problem == "missing: no such file: gone.png"
    assert save_view(lost, 99, tmp_path).problem == "this sample is no longer listed as usable"
    assert not (tmp_path / "images").exists()


def test_a_sample_of_text_only_is_a_gap_that_says_so(tmp_path):
    wordy = catalog(replace(sample(0), images=(), regions=()))
    assert save_view(wordy, 0, tmp_path).problem == "this sample has none"
