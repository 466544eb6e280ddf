"""Qwen2.5-VL: an image of any size as one grid, several patches merged into a token."""

from __future__ import annotations

from neuron_atlas.tasks.subject.families.grid import Grid, PreparedSample, whole


def lay_out(shown: PreparedSample) -> list[Grid]:
    """One grid over all of each image, which the processor only stretches."""
    merged = shown.config.vision_config.spatial_merge_size
    if not shown.sizes:
        return []
    patches = shown.inputs["image_grid_thw"].tolist()
    return [
        whole(image, size, rows // merged, columns // merged)
        for image, (size, (_, rows, columns)) in enumerate(zip(shown.sizes, patches, strict=True))
    ]
