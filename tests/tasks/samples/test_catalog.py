from dataclasses import dataclass

import numpy as np
from PIL import Image

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.source import OpenedImage


@dataclass(frozen=True)
class Plain:
    """A source whose images are 40 x 20 pixels of the color that they are called."""

    def open_image(self, image: str) -> OpenedImage:
        return OpenedImage(Image.new("RGB", (40, 20), image), "")


def catalog(images: tuple[str, ...], *regions: Region) -> Catalog:
    sample = Sample(0, "0", images, "x", ("x",), regions, width=40, height=20)
    return Catalog({0: sample}, source=Plain())  # type: ignore[arg-type]


def test_a_view_of_one_image_is_what_its_regions_cover():
    red = catalog(("red",), Region(0, 1, 1, 10, 0, 30, 20))
    assert red.open_view(0).size == (20, 20)
    assert red.open_view(0).getcolors() == [(400, (255, 0, 0))]


def test_what_lies_beyond_the_image_is_black():
    padded = catalog(("red",), Region(0, 1, 1, 0, -10, 40, 30))
    pixels = np.asarray(padded.open_view(0))
    assert pixels.shape == (40, 40, 3)
    assert (pixels[10:30] == (255, 0, 0)).all()
    assert (pixels[:10] == 0).all()
    assert (pixels[30:] == 0).all()


def test_a_view_of_several_images_holds_each_where_its_regions_are():
    both = catalog(("red", "blue"), Region(0, 1, 1, 0, 0, 40, 20), Region(1, 1, 1, 0, 0, 20, 20))
    pixels = np.asarray(both.open_view(0))
    assert pixels.shape == (20, 60, 3)
    assert (pixels[:, :40] == (255, 0, 0)).all()
    assert (pixels[:, 40:] == (0, 0, 255)).all()
    for region, color in zip(both[0].view.regions, [(255, 0, 0), (0, 0, 255)], strict=True):
        assert (pixels[:, int(region.left) : int(region.right)] == color).all()


def test_a_sample_of_text_only_has_no_visual_tokens():
    assert catalog(())[0].n_visual == 0
    assert catalog(()).open_images(0) == []
