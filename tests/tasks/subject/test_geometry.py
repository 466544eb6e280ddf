import numpy as np
import pytest
from PIL import Image
from transformers import CLIPImageProcessorPil

from neuron_atlas.tasks.subject.geometry import visible_box
from neuron_atlas.tasks.subject.load import Subject

PATCH = 16
SQUARE = {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
}
CLIP_336 = {
    "size": {"shortest_edge": 336},
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
}
"""As in LLaVA-1.5's processor."""
CROP_OF_THE_WHOLE = CLIP_336 | {"do_resize": False}
CROP_LARGER_THAN_IMAGE = CLIP_336 | {"size": {"shortest_edge": 256}}
CROP_OF_A_SQUARE = CLIP_336 | {"size": {"height": 400, "width": 500}}

PORTRAIT, LANDSCAPE, EVEN = (480, 640), (900, 500), (400, 400)


def where_every_pixel_lies(width: int, height: int) -> Image.Image:
    """Red grows from left to right, green from top to bottom; blue says that there is an image."""
    pixels = np.full((height, width, 3), 255.0)
    pixels[..., 0] = (np.arange(width) + 0.5) / width * 255
    pixels[..., 1] = ((np.arange(height) + 0.5) / height * 255)[:, None]
    return Image.fromarray(pixels.round().astype(np.uint8))


def looked_at(settings: dict, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """The place (px of the original) that the processor lets each patch see, float [rows, columns,
    2] as x and y, and whether all of the patch lies in the image."""
    processor = CLIPImageProcessorPil(**settings, do_normalize=False)
    image = where_every_pixel_lies(width, height)
    pixels = processor(image, return_tensors="np")["pixel_values"][0]
    rows, columns = (side // PATCH for side in pixels.shape[1:])
    patches = pixels.reshape(3, rows, PATCH, columns, PATCH).transpose(1, 3, 0, 2, 4)
    means = patches.mean((3, 4))
    return means[..., :2] * (width, height), patches[:, :, 2].min((2, 3)) > 0.99


@pytest.mark.parametrize(
    "shape", [PORTRAIT, LANDSCAPE, EVEN], ids=["portrait", "landscape", "even"]
)
@pytest.mark.parametrize(
    "settings",
    [SQUARE, CLIP_336, CROP_OF_THE_WHOLE, CROP_LARGER_THAN_IMAGE, CROP_OF_A_SQUARE],
    ids=["square", "clip-336", "crop only", "crop larger than image", "square then crop"],
)
def test_the_view_is_what_the_processor_shows_the_model(settings, shape):
    seen, inside = looked_at(settings, *shape)
    view = visible_box(CLIPImageProcessorPil(**settings), *shape)
    left, top, right, bottom = view
    rows, columns = inside.shape
    x = left + (np.arange(columns) + 0.5) / columns * (right - left)
    y = top + (np.arange(rows) + 0.5) / rows * (bottom - top)
    expected = np.stack(np.meshgrid(x, y), -1)
    assert inside.sum() >= 100
    assert np.abs(seen - expected)[inside].max() < 0.01 * max(shape)


def test_resizing_to_a_square_shows_the_whole_image():
    assert visible_box(CLIPImageProcessorPil(**SQUARE), *PORTRAIT) == (0, 0, 480, 640)


def test_shortest_edge_and_centre_crop_show_the_middle_square():
    processor = CLIPImageProcessorPil(**CLIP_336)
    assert visible_box(processor, *PORTRAIT) == pytest.approx((0, 80, 480, 560))
    assert visible_box(processor, *LANDSCAPE) == pytest.approx((200, 0, 700, 500))


def test_a_crop_larger_than_the_image_looks_beyond_its_edges():
    processor = CLIPImageProcessorPil(**CROP_LARGER_THAN_IMAGE)
    assert visible_box(processor, *EVEN) == pytest.approx((-62.5, -62.5, 462.5, 462.5))


def test_the_bundled_subject_sees_all_of_an_image_of_any_shape(subject: Subject):
    for shape in (PORTRAIT, LANDSCAPE, EVEN):
        view = visible_box(subject.processor.image_processor, *shape)
        assert view == (0, 0, *shape)
