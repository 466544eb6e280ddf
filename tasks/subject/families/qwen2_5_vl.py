"""Qwen2.5-VL: one grid per image of any size; several patches are merged into one token."""

from __future__ import annotations

from neuron_atlas.tasks.subject.families.grid import Grid, ProcessedSample, whole_image_grid


def lay_out(sample: ProcessedSample) -> list[Grid]:
    """Return one grid over each whole image: the processor only stretches it."""
    merge_size = sample.config.vision_config.spatial_merge_size
    if not sample.sizes:
        return []
    patches = sample.inputs["image_grid_thw"].tolist()
    return [
        whole_image_grid(image, size, rows // merge_size, columns // merge_size)
        for image, (size, (_, rows, columns)) in enumerate(zip(sample.sizes, patches, strict=True))
    ]
