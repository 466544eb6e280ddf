"""What a subject's language model reads for each token, and how it depends on the image."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from PIL import Image

from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import EncodedSample, encode
from neuron_atlas.tasks.subject.load import Subject

_MIXING = re.compile(r"(out_proj|attn\.proj|attention\.projection_layer)\.(weight|bias)$")
"""What a vision tower adds to a patch from all others passes through one of these."""


def embeddings(subject: Subject, encoded: EncodedSample) -> torch.Tensor:
    """What enters the first decoder layer: [tokens, width]."""
    read: list[torch.Tensor] = []

    def keep(_module: object, _args: object, kwargs: dict) -> None:
        read.append(kwargs["inputs_embeds"])

    decoder = subject.model.model.get_decoder()
    handle = decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.inference_mode():
            forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
    finally:
        handle.remove()
    return read[0][0]


def stop_mixing(subject: Subject) -> int:
    """Silence attention in the vision tower, so that each patch is worked on by itself.

    Every tower here mixes all patches, or all of a window. All else stays as it is: the patch
    embedding, the tower's own feed-forward layers, and whatever orders, merges, pools, crops or
    interleaves features on their way to the language model. Returns how many layers it silenced.
    """
    decoder = {id(weight) for weight in subject.model.model.get_decoder().parameters()}
    silenced = set()
    for name, weight in subject.model.named_parameters():
        if id(weight) not in decoder and _MIXING.search(name):
            torch.nn.init.zeros_(weight)
            silenced.add(name.rpartition(".")[0])
    return len(silenced)


def change_of_tokens(
    subject: Subject,
    images: Sequence[Image.Image],
    image: int,
    box: tuple[float, float, float, float],
    text: str,
) -> torch.Tensor:
    """How far each token's embedding moves when the pixels of a box of one image are inverted."""
    changed = [picture.copy() for picture in images]
    corners = tuple(round(edge) for edge in box)
    inside = changed[image].crop(corners)  # type: ignore[arg-type]
    changed[image].paste(inside.point(lambda value: 255 - value), corners[:2])
    before, after = (
        embeddings(subject, encode(subject, shown, text)) for shown in (images, changed)
    )
    return (after - before).abs().amax(1)
