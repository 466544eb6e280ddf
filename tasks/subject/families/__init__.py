"""Map the visual tokens of each model family to image regions.

A family is one function from the processor's output (`ProcessedSample`) to the grids of visual
tokens over the images (`Grid`), in the order of their placeholders in the sequence. transformers
handles all other differences: the number of tokens of an image, their placeholder, the prompt
format and the location of the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from neuron_atlas.tasks.subject.families import (
    gemma3,
    idefics3,
    internvl,
    llava,
    llava_next,
    qwen2_5_vl,
)
from neuron_atlas.tasks.subject.families.grid import Grid, ProcessedSample, visual_mask

__all__ = ["FAMILIES", "Grid", "ProcessedSample", "visual_mask"]

FAMILIES: Mapping[str, Callable[[ProcessedSample], list[Grid]]] = {
    "llava": llava.lay_out,
    "llava_next": llava_next.lay_out,
    "llava_onevision": llava_next.lay_out_onevision,
    "qwen2_5_vl": qwen2_5_vl.lay_out,
    "internvl": internvl.lay_out,
    "idefics3": idefics3.lay_out,
    "smolvlm": idefics3.lay_out,
    "gemma3": gemma3.lay_out,
}
"""The `model_type` of a model's configuration, and its family's function."""
