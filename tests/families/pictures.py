"""Pictures of several proportions, for every family to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from neuron_atlas.tasks.samples.source import Concept, OpenedImage, SampleRecord

TEXT_SAID = "A red dog by the sea."
SIZES = {"even": (128, 128), "landscape": (300, 100), "portrait": (90, 260), "odd": (211, 187)}


def drawn(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blocks of random colors, so that every patch looks like no other."""
    rng = np.random.default_rng([seed, width, height])
    blocks = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)


PICTURES = {name: drawn(*size) for name, size in SIZES.items()}
SEVERAL = [PICTURES["landscape"], PICTURES["portrait"]]


@dataclass(frozen=True)
class Pictures:
    """A source of drawn pictures of four sizes, of pairs of them, and of none."""

    def records(self) -> list[SampleRecord]:
        shown = [(f"{size}/{seed}",) for seed in range(4) for size in SIZES]
        shown += [("even/8", "odd/8"), ("landscape/9", "landscape/10"), ()]
        return [SampleRecord(str(place), images, TEXT_SAID) for place, images in enumerate(shown)]

    def open_image(self, image: str) -> OpenedImage:
        size, _, seed = image.partition("/")
        return OpenedImage(drawn(*SIZES[size], int(seed)), image)

    def concepts(self, image: str) -> list[Concept]:
        return []
