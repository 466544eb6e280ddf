"""Where LLaVA-NeXT's tiles show each place of an image, told by the processor's own pixels."""

import numpy as np
import pytest
from transformers import LlavaNextImageProcessorPil
from transformers.image_processing_utils import select_best_resolution

from neuron_atlas.tasks.artifacts.regions import token_boxes
from neuron_atlas.tasks.subject.encode import encode
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings
from tests.families.building import build
from tests.families.instances import BUILDS, SIDE, TILINGS
from tests.tasks.subject.test_geometry import where_every_pixel_lies

PATCH = 8


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = build(BUILDS["llava_next"], tmp_path_factory.mktemp("llava_next"))
    return load_subject(SubjectSettings(model=str(folder)))


def shown(processor: LlavaNextImageProcessorPil, width: int, height: int) -> np.ndarray:
    """What each patch of the tiles shows: x, y (px of the original) and the share that is image."""
    image = where_every_pixel_lies(width, height)
    pixels = processor(image, do_normalize=False, return_tensors="np")["pixel_values"][0]
    rows, columns = (side // SIDE for side in select_best_resolution((height, width), TILINGS))
    tiles = pixels[1:].reshape(rows, columns, 3, SIDE, SIDE).transpose(2, 0, 3, 1, 4)
    patches = tiles.reshape(3, rows * SIDE // PATCH, PATCH, columns * SIDE // PATCH, PATCH)
    means = patches.mean((2, 4)).transpose(1, 2, 0)
    return means * (width, height, 1)


@pytest.mark.parametrize(
    "size",
    [
        (70, 260),
        (260, 70),
        (60, 280),
        (280, 60),
        (100, 330),
        (211, 187),
        (128, 128),
        (300, 101),
        (97, 150),
    ],
)
def test_the_tiles_look_where_the_processor_puts_the_image(subject, size):
    (_, tiled) = encode(subject, [where_every_pixel_lies(*size)], "x").regions
    seen = shown(subject.processor.image_processor, *size)
    first_row, first_column = (np.array(seen.shape[:2]) - (tiled.rows, tiled.columns)) // 2
    seen = seen[first_row:, first_column:][: tiled.rows, : tiled.columns].reshape(-1, 3)
    boxes = token_boxes([tiled])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    whole = seen[:, 2] > 0.995
    assert whole.sum() >= 12
    assert np.abs(seen[whole, :2] - centres[whole]).max() < 0.5  # px
