"""In the place of a segmentation model: a map is bright where an image has the color named.

It has the model's seam (see Segmenter), and what comes of it can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from neuron_atlas.tasks.samples.scenes import COLORS

_CELLS = 32
_NEAR = 30.0


class ColorSegmenter:
    longest_text = 77

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """The images themselves, smaller [images, cells, cells, 3]."""
        small = [
            np.asarray(image.resize((_CELLS, _CELLS), Image.Resampling.BOX)) for image in images
        ]
        return torch.from_numpy(np.stack(small).astype(np.float32)) / 255

    def covered_box(self, image: Image.Image) -> tuple[float, float, float, float]:
        return (0.0, 0.0, float(image.width), float(image.height))

    def encode_texts(self, texts: Sequence[str]) -> tuple[torch.Tensor, list[bool]]:
        """The color that each text names [texts, 3]; one that is nowhere if it names none."""
        told = [
            next((np.array(rgb) / 255 for name, rgb in COLORS.items() if name in text), [9, 9, 9])
            for text in texts
        ]
        return torch.from_numpy(np.stack(told).astype(np.float32)), [False] * len(texts)

    def heat_maps(self, seen: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        return torch.exp(-_NEAR * (seen - told[:, None, None]).square().sum(-1))
