"""Gemma 3: one square an image, and its crops where pan and scan is on."""

from __future__ import annotations

import math

from neuron_atlas.tasks.subject.families.grid import Grid, PreparedSample, whole
from neuron_atlas.tasks.subject.settings import SubjectError


def lay_out(shown: PreparedSample) -> list[Grid]:
    """One grid over all of each image, which the processor only stretches. Raises SubjectError."""
    if len(shown.runs()) != len(shown.sizes):
        raise SubjectError(
            "subject.model: the processor of this Gemma 3 crops images (pan and scan), and where "
            'the crops lie is not known here; set "do_pan_and_scan": false in the model\'s '
            "processor configuration"
        )
    side = math.isqrt(shown.config.mm_tokens_per_image)
    return [whole(image, size, side, side) for image, size in enumerate(shown.sizes)]
