"""What a subject's language model reads for each token, and how it depends on the image."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from neuron_atlas.tasks.artifacts.regions import Region, token_boxes
from neuron_atlas.tasks.subject.batch import batch_inputs, forward_body
from neuron_atlas.tasks.subject.encode import VISUAL, EncodedSample, encode
from neuron_atlas.tasks.subject.find_layout import _self_attention_only, first_hidden
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


def misplaced_tokens(subject: Subject, images: Sequence[Image.Image], text: str) -> list[str]:
    """Return which tokens do not change as their regions say when the pixels that they look at are
    inverted: a few of each region, at its edges and within.

    Patches of the vision tower attend only to themselves. The token that changes most of its region
    must be within a token's width of the one that looks there, and nothing but visual tokens of the
    same image may change.
    """
    encoded = encode(subject, images, text)
    boxes = token_boxes(encoded.regions)
    of_image = np.repeat(
        [one.image for one in encoded.regions], [one.tokens for one in encoded.regions]
    )
    visual = (encoded.roles == VISUAL).numpy()
    wrong = []
    first = 0
    with _self_attention_only(subject), torch.inference_mode():
        before = first_hidden(subject, encoded).float()
        for region in encoded.regions:
            mine = slice(first, first + region.tokens)
            for token in _chosen(region, boxes[mine], images[region.image].size):
                box = boxes[first + token]
                changed = [picture.copy() for picture in images]
                _invert(changed[region.image], box)
                after = first_hidden(subject, encode(subject, changed, text)).float()
                moved = (after - before).norm(dim=-1).cpu().numpy()
                silent = 1e-5 * moved.max()
                most = boxes[first + moved[visual][mine].argmax()]
                reach = 1.01 * np.tile(box[2:] - box[:2], 2)  # A token's width and height.
                if (abs(most - box) > reach).any():
                    wrong.append(f"token {token} of {region}: most change at {most}")
                if (moved[~visual] > silent).any() or (
                    moved[visual][of_image != region.image] > silent
                ).any():
                    wrong.append(f"token {token} of {region}: others change")
            first += region.tokens
    return wrong


def _chosen(region: Region, boxes: np.ndarray, size: tuple[int, int]) -> list[int]:
    rows, columns = region.rows, region.columns
    places = {(0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 2)}
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres > 0) & (centres < size)).all(1)
    return [place for row, column in sorted(places) if inside[place := row * columns + column]]


def _invert(picture: Image.Image, box: Sequence[float]) -> None:
    corners = [round(edge) for edge in box]
    left, top = max(0, corners[0]), max(0, corners[1])
    corners = [left, top, min(picture.width, corners[2]), min(picture.height, corners[3])]
    inside = picture.crop(corners)  # type: ignore[arg-type]
    picture.paste(inside.point(lambda value: 255 - value), (left, top))
