"""What a resize and a centre crop leave of an image."""

from __future__ import annotations

from typing import Any


def image_view(image_processor: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """The box of the original (left, top, right, bottom, px) that the patch grid covers.

    Follows the processor's own steps backwards: resize (to a square, or the shortest edge),
    then a centre crop, which leaves the image where the crop is the larger of the two.
    """
    size = image_processor.size
    shortest = getattr(size, "shortest_edge", None)
    if not image_processor.do_resize:
        resized_width, resized_height = float(width), float(height)
    elif shortest:
        # The processor rounds the longer edge down, which moves the crop by less than a pixel.
        scale = shortest / min(width, height)
        resized_width, resized_height = width * scale, height * scale
    else:
        resized_width, resized_height = float(size.width), float(size.height)
    if not image_processor.do_center_crop:
        return (0.0, 0.0, float(width), float(height))
    crop = image_processor.crop_size
    left = (resized_width - crop.width) / 2 * width / resized_width
    top = (resized_height - crop.height) / 2 * height / resized_height
    return (left, top, width - left, height - top)
