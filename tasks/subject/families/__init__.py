"""Families of vision-language models, and where in the images their visual tokens look.

A family is one function from what the processor prepared (`PreparedSample`) to the grids of visual
tokens over the images (`Grid`), in the order in which their placeholders stand in the sequence. All
else that differs between families, transformers knows: how many tokens an image takes, which token
is their placeholder, what a prompt looks like, where the decoder is.
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
from neuron_atlas.tasks.subject.families.grid import Grid, PreparedSample, looking

__all__ = ["FAMILIES", "Grid", "PreparedSample", "looking"]

FAMILIES: Mapping[str, Callable[[PreparedSample], list[Grid]]] = {
    "llava": llava.lay_out,
    "llava_next": llava_next.lay_out,
    "llava_onevision": llava_next.lay_out_onevision,
    "qwen2_5_vl": qwen2_5_vl.lay_out,
    "internvl": internvl.lay_out,
    "idefics3": idefics3.lay_out,
    "smolvlm": idefics3.lay_out,
    "gemma3": gemma3.lay_out,
}
"""By the `model_type` of the model's configuration."""
