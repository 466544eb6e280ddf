"""Compute which part of an image remains after resizing and center-cropping."""

from __future__ import annotations

from typing import Any

from transformers.image_utils import SizeDict


def visible_box(image_processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """Return the box (left, top, right, bottom, px of the original) that the patch grid covers.

    Inverts the processor's steps: a resize (to a fixed size, or by the shortest edge), then a
    center crop. The box exceeds the image if the crop is larger than the resized image.
    """
    size = SizeDict(**dict(image_processor.size))
    shortest = size.shortest_edge
    if not image_processor.do_resize:
        resized_width, resized_height = float(width), float(height)
    elif shortest:
        # The processor rounds the longer edge down; this moves the crop by less than a pixel.
        scale = shortest / min(width, height)
        resized_width, resized_height = width * scale, height * scale
    else:
        resized_width, resized_height = float(size.width), float(size.height)
    if not image_processor.do_center_crop:
        return (0.0, 0.0, float(width), float(height))
    crop = SizeDict(**dict(image_processor.crop_size))
    left = (resized_width - crop.width) / 2 * width / resized_width
    top = (resized_height - crop.height) / 2 * height / resized_height
    return (left, top, width - left, height - top)
