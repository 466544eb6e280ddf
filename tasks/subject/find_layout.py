"""Find where a subject's visual tokens look: change stripes of an image, and see which embeddings
change."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from neuron_atlas.tasks.artifacts.regions import token_boxes
from neuron_atlas.tasks.subject.batch import EndOfPassError, batch_inputs, forward_body
from neuron_atlas.tasks.subject.candidates import candidates
from neuron_atlas.tasks.subject.encode import EncodedSample, process
from neuron_atlas.tasks.subject.families.grid import ProcessedSample, visual_mask
from neuron_atlas.tasks.subject.layout import LayOut, Layout, fitting_grids
from neuron_atlas.tasks.subject.settings import SubjectError
from neuron_atlas.tasks.subject.subject import Subject

_SIZES = ((300, 200), (190, 310), (256, 256), (420, 140))
"""Width and height (px) of the images. The first one selects layouts, the others verify them."""

_STRIPES = 12
"""Stripes per axis."""

_AGREEMENT = 0.98
"""Share of the visual tokens that must look where a layout puts them, in every image."""

_SILENT = 1e-5
"""Share of the largest change of an image below which a token has not changed."""

_STRONG = 0.3
"""Share of a token's largest change below which a stripe does not count."""

_SELF_ONLY = "neuron_atlas_self_only"


@dataclass(frozen=True)
class _Probe:
    """Changes of the embeddings of one image's placeholders.

    sample: the processed image. x, y: float [stripes, placeholders], by vertical and horizontal
    stripes of equal size.
    """

    sample: ProcessedSample
    x: np.ndarray
    y: np.ndarray


def find_layout(subject: Subject) -> Layout:
    """Return the first candidate that agrees with every image, or a layout without geometry.

    Deterministic: images and their changes are fixed. Raises SubjectError if no placeholder changes
    with an image.
    """
    with torch.inference_mode(), _self_attention_only(subject):
        try:
            first, *others = (_probe(subject, size) for size in _SIZES)
        except Exception as error:
            return Layout(about=f"no probe was possible ({type(error).__name__}: {error})")
        if not all(probe.x.max(initial=0) > 0 for probe in (first, *others)):
            raise SubjectError(
                f"subject.model: the placeholders of {subject.settings.model!r} do not change with "
                "the image: it has no visual tokens in its decoder's sequence"
            )
        for name, lay_out in candidates().items():
            shares = [_agreement(lay_out, probe) for probe in (first, *others)]
            if min(shares) >= _AGREEMENT and _tells_images_apart(subject, lay_out):
                n_tokens = sum(probe.x.shape[1] for probe in (first, *others))
                return Layout(
                    "probed",
                    lay_out,
                    f"{name}; verified on {n_tokens:,} tokens of {len(_SIZES)} images",
                )
    return Layout(about="no layout that is known here agrees with the changes of its tokens")


def _probe(subject: Subject, size: tuple[int, int]) -> _Probe:
    image = _drawn(*size)
    changed = [_inverted(image, box) for axis in (0, 1) for box in _stripes(size, axis)]
    samples = [process(subject, [one], "a").sample for one in (image, *changed)]
    before, *after = (_embeddings(subject, one) for one in samples)
    moved = np.stack([_moved(before, one) for one in after])
    return _Probe(samples[0], moved[:_STRIPES], moved[_STRIPES:])


def _agreement(lay_out: LayOut, probe: _Probe) -> float:
    """Return the share of placeholders that change as a layout predicts."""
    grids = fitting_grids(lay_out, probe.sample)
    if not grids:
        return 0.0
    visual = visual_mask(grids).numpy()
    largest = max(probe.x.max(), probe.y.max())
    if largest <= 0:
        return 0.0
    responds = np.maximum(probe.x.max(0), probe.y.max(0)) > _SILENT * largest
    boxes = token_boxes([grid.region for grid in grids])
    (size,) = probe.sample.sizes
    agrees = np.ones(len(visual), dtype=bool)
    agrees[~visual] = ~responds[~visual]
    fits = np.ones(len(boxes), dtype=bool)
    is_inside = np.ones(len(boxes), dtype=bool)
    for axis, profile in enumerate((probe.x, probe.y)):
        low, high = boxes[:, axis], boxes[:, axis + 2]
        centre = (low.clip(0, size[axis]) + high.clip(0, size[axis])) / 2
        is_inside &= (low + high > 0) & (low + high < 2 * size[axis])
        stripe = size[axis] / _STRIPES
        reach = (high - low) / 4 + stripe / 2
        fits &= abs(_centroids(profile[:, visual]) * size[axis] - centre) <= reach + 1e-6
    # A token over the padding need not change; one that looks at the image must.
    agrees[visual] = np.where(is_inside, fits & responds[visual], fits | ~responds[visual])
    return float(agrees.mean())


def _centroids(profile: np.ndarray) -> np.ndarray:
    """Return the middle of each token's strong changes, as a share of the image: [tokens]."""
    strong = np.where(profile >= _STRONG * profile.max(0, keepdims=True), profile, 0)
    middles = (np.arange(len(profile)) + 0.5) / len(profile)
    return (middles[:, None] * strong).sum(0) / np.maximum(strong.sum(0), 1e-30)


def _tells_images_apart(subject: Subject, lay_out: LayOut) -> bool:
    """Return whether a layout says which of two images each token looks at."""
    images = [_drawn(*size) for size in _SIZES[:2]]
    for changed in (0, 1):
        shown = [
            _inverted(one, (0, 0, *one.size)) if place == changed else one
            for place, one in enumerate(images)
        ]
        before, after = (process(subject, one, "a").sample for one in (images, shown))
        grids = fitting_grids(lay_out, before)
        if grids is None:
            return False
        moved = _moved(_embeddings(subject, before), _embeddings(subject, after))
        responds = moved[visual_mask(grids).numpy()] > _SILENT * moved.max()
        of_image = np.repeat([g.region.image for g in grids], [g.region.tokens for g in grids])
        if (responds & (of_image != changed)).any():
            return False
    return True


def _embeddings(subject: Subject, sample: ProcessedSample) -> torch.Tensor:
    """Return what the first decoder layer reads at each placeholder: float32 [placeholders,
    width]."""
    nothing = torch.zeros(len(sample.input_ids), dtype=torch.int8)
    encoded = EncodedSample(sample.input_ids, nothing, sample.inputs, (), ())
    hidden = first_hidden(subject, encoded)
    return hidden[(sample.input_ids == sample.placeholder).to(hidden.device)].float().cpu()


def first_hidden(subject: Subject, encoded: EncodedSample) -> torch.Tensor:
    """Return what the first decoder layer reads of a sample: [tokens, width]. The forward pass
    ends there."""
    read: list[torch.Tensor] = []

    def keep(_module: object, args: tuple, kwargs: dict) -> None:
        read.append(args[0] if args else kwargs["hidden_states"])
        raise EndOfPassError

    handle = subject.decoder.layers[0].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with suppress(EndOfPassError):
            forward_body(subject, batch_inputs([encoded], len(encoded.input_ids)))
    finally:
        handle.remove()
    # The first sample; Gemma 3n has several streams; the first one is the embedding.
    return read[0].flatten(0, -3)[0]


def _moved(before: torch.Tensor, after: torch.Tensor) -> np.ndarray:
    return (after - before).norm(dim=-1).numpy()


def _stripes(size: tuple[int, int], axis: int) -> Iterator[tuple[int, int, int, int]]:
    edges = np.linspace(0, size[axis], _STRIPES + 1).round().astype(int).tolist()
    for low, high in itertools.pairwise(edges):
        yield (low, 0, high, size[1]) if axis == 0 else (0, low, size[0], high)


def _inverted(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    changed = image.copy()
    changed.paste(image.crop(box).point(lambda value: 255 - value), box[:2])
    return changed


def _drawn(width: int, height: int) -> Image.Image:
    """Return blocks of random colors, none of them gray: inverting changes every pixel."""
    rng = np.random.default_rng([width, height])
    blocks = rng.integers(0, 90, (9, 11, 3), dtype=np.uint8)
    blocks += np.uint8(165) * rng.integers(0, 2, blocks.shape, dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


@contextmanager
def _self_attention_only(subject: Subject) -> Iterator[None]:
    """Within the block, patches of the vision tower attend only to themselves, so that an embedding
    changes with its own patch.

    Attention between other queries and keys does not change. Neither does attention that a model
    computes without transformers' interface: its changes spread, and no layout may be found.
    """
    AttentionInterface.register(_SELF_ONLY, _attend_to_self)
    AttentionMaskInterface.register(_SELF_ONLY, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    decoder = {id(part) for part in subject.decoder.modules()}
    of_decoder = {id(part.config) for part in subject.decoder.modules() if hasattr(part, "config")}
    configs = {
        id(part.config): part.config
        for part in subject.model.modules()
        if id(part) not in decoder and hasattr(part, "config")
    }
    changed: list[tuple[Any, str | None]] = []
    try:
        for key, config in configs.items():
            if key not in of_decoder and hasattr(config, "_attn_implementation_internal"):
                changed.append((config, config._attn_implementation_internal))
                config._attn_implementation_internal = _SELF_ONLY
        yield
    finally:
        for config, before in changed:
            config._attn_implementation_internal = before


def _attend_to_self(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if query.shape[2] != key.shape[2]:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)
    repeats = query.shape[1] // value.shape[1]
    return value.repeat_interleave(repeats, dim=1).transpose(1, 2).contiguous(), None
