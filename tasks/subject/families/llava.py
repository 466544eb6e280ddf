"""LLaVA-1.5: one square of patches an image, resized or cropped."""

from __future__ import annotations

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.subject.families.grid import Grid, PreparedSample
from neuron_atlas.tasks.subject.geometry import image_view


def lay_out(shown: PreparedSample) -> list[Grid]:
    """The patch grid of each image over what the processor leaves of it."""
    patch = shown.config.vision_config.patch_size
    grids = []
    for image, size in enumerate(shown.sizes):
        height, width = shown.inputs["pixel_values"][image].shape[-2:]
        view = image_view(shown.processor.image_processor, *size)
        grids.append(Grid(Region(image, height // patch, width // patch, *view)))
    return grids
