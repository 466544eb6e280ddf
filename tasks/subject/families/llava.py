"""LLaVA-1.5: one square patch grid per image, which is resized and cropped."""

from __future__ import annotations

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.subject.families.grid import Grid, ProcessedSample
from neuron_atlas.tasks.subject.geometry import visible_box


def lay_out(sample: ProcessedSample) -> list[Grid]:
    """Return the patch grid of each image, over the part that remains after cropping."""
    patch = sample.config.vision_config.patch_size
    grids = []
    for image, size in enumerate(sample.sizes):
        height, width = sample.inputs["pixel_values"][image].shape[-2:]
        view = visible_box(sample.processor.image_processor, *size)
        grids.append(Grid(Region(image, height // patch, width // patch, *view)))
    return grids
