import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from neuron_atlas.tasks.evidence.evidence import ActivationRecord
from neuron_atlas.tasks.report.palette import heat_colors
from neuron_atlas.tasks.report.pictures import heat_map, jpeg_bytes, open_scaled_view
from neuron_atlas.tasks.report.record import sample_heat_map
from tests.tasks.report.synthetic import catalog, sample


def opened(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@pytest.mark.parametrize("shape", [(8, 8), (24, 24), (3, 7)])
def test_a_heat_map_has_a_pixel_for_each_patch(shape):
    tens = np.linspace(0, 10, shape[0] * shape[1]).reshape(shape)
    assert (opened(heat_map(tens)) == heat_colors(tens / 10)).all()


@pytest.mark.parametrize(
    ("image", "size"),
    [("640x480", (320, 240)), ("480x640", (240, 320)), ("48x48", (48, 48))],
)
def test_a_view_is_small_in_its_own_proportions(image, size):
    view, problem = open_scaled_view(catalog(sample(7, image=image)), 7, 320)
    assert view is not None
    assert (view.size, problem) == (size, "")
    written = Image.open(io.BytesIO(jpeg_bytes(view)))
    assert (written.format, written.size) == ("JPEG", size)


def test_a_view_shows_what_the_patch_grid_covers():
    # The source's images run from black at the top to white at the bottom.
    view, _ = open_scaled_view(catalog(sample(0, image="100x100", view=(0, 80, 20, 100))), 0)
    assert view is not None
    pixels = np.asarray(view.convert("L"))
    assert pixels.shape == (20, 20)
    assert pixels.min() > 190


def test_what_no_longer_opens_is_a_gap_that_says_why():
    lost = catalog(sample(0, image="gone.png"))
    assert open_scaled_view(lost, 0) == (None, "missing: no such file: gone.png")
    assert open_scaled_view(lost, 99) == (None, "this sample is no longer listed as usable")
    assert open_scaled_view(replace(lost, source=None), 0) == (None, "the dataset is not available")


def test_a_sample_of_text_only_is_a_gap_that_says_so():
    wordy = catalog(replace(sample(0), images=(), regions=()))
    assert open_scaled_view(wordy, 0) == (None, "this sample has none")


def test_a_heat_map_is_left_out_where_the_sample_has_changed():
    seen = ActivationRecord(0, np.ones(9, np.float32), np.ones(3, np.float32))
    assert sample_heat_map(seen, 1.0, catalog(sample(0, grid=(2, 2)))) is None
    assert sample_heat_map(seen, 1.0, catalog(sample(0, grid=(3, 3)))) is not None
    assert sample_heat_map(seen, 1.0, catalog()) is None
