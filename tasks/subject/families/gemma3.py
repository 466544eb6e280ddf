"""Gemma 3: one square grid per image; pan and scan (extra crops) is not supported."""

from __future__ import annotations

import math

from neuron_atlas.tasks.subject.families.grid import Grid, ProcessedSample, whole_image_grid
from neuron_atlas.tasks.subject.settings import SubjectError


def lay_out(sample: ProcessedSample) -> list[Grid]:
    """Return one grid over each whole image: the processor stretches it to a square.

    Raises SubjectError if pan and scan is on.
    """
    if len(sample.runs()) != len(sample.sizes):
        raise SubjectError(
            "subject.model: this Gemma 3 processor crops images (pan and scan), which is not "
            'supported; set "do_pan_and_scan": false in the model\'s processor configuration'
        )
    side = math.isqrt(sample.config.mm_tokens_per_image)
    return [whole_image_grid(image, size, side, side) for image, size in enumerate(sample.sizes)]
