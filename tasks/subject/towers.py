"""Read neurons of the vision tower and the projector, at the visual tokens of their patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from neuron_atlas.tasks.subject.ffn import find_ffn, linear_layers
from neuron_atlas.tasks.subject.settings import VISION, HookPoint, SubjectError
from neuron_atlas.tasks.subject.subject import Subject


def tower_blocks(subject: Subject, hook_point: HookPoint) -> Sequence[Any]:
    """Return the layers of the vision tower that the image features come from, or the projector.

    Raises SubjectError if there is none that is recognized.
    """
    root, layers = _tower(subject)
    if hook_point == VISION:
        return layers[: _n_used(subject, len(layers))]
    others = [
        part
        for part in subject.body.children()
        if root not in part.modules() and subject.decoder not in part.modules()
    ]
    for part in others:
        if len(linear_layers(part)) == 2:
            return [part]
    raise SubjectError(
        f"capture.hook_point: {subject.settings.model!r} has no projector of two linear layers; "
        "set another hook point"
    )


def tower_neurons(subject: Subject, layer: int, hook_point: HookPoint) -> int:
    """Return the number of neurons of a layer of the tower, or of the projector. Raises
    SubjectError."""
    return int(_last_linear(subject, layer, hook_point).in_features)


@contextmanager
def observing_patches(
    subject: Subject, layer: int, hook_point: HookPoint, observe: Callable[[torch.Tensor], object]
) -> Iterator[None]:
    """Within the block, call `observe(activations [batch, tokens, neurons])` in every forward pass
    of the body: the activations of each visual token's patch, and 0 at all other tokens.

    The neurons are at the input of the last linear layer of the FFN, or of the projector. A class
    token is left out. Raises SubjectError in a pass whose patches are not its visual tokens one to
    one.
    """
    down = _last_linear(subject, layer, hook_point)
    placeholders: list[torch.Tensor] = []

    def before_pass(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        placeholders[:] = [kwargs["input_ids"] == subject.image_token_id]
        if not placeholders[0].any():  # The tower does not run.
            shape = (*placeholders[0].shape, down.in_features)
            observe(torch.zeros(shape, dtype=down.weight.dtype, device=down.weight.device))

    def before_linear(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        observe(_at_tokens(subject, inputs[0].detach(), placeholders[0], hook_point))

    with ExitStack() as hooks:
        handle = subject.body.register_forward_pre_hook(before_pass, with_kwargs=True)
        hooks.callback(handle.remove)
        hooks.callback(down.register_forward_pre_hook(before_linear).remove)
        yield


def _at_tokens(
    subject: Subject, values: torch.Tensor, placeholders: torch.Tensor, hook_point: HookPoint
) -> torch.Tensor:
    """Return activations [images, patches, neurons] at the placeholders of the images: [batch,
    tokens, neurons]."""
    count = int(placeholders.sum())
    n_images, n_patches = values.shape[0], values.shape[1] if values.dim() == 3 else 0
    class_tokens = n_patches - count // n_images
    if count % n_images or class_tokens not in (0, 1):
        raise SubjectError(
            f"capture.hook_point: {hook_point} of {subject.settings.model!r} has activations of "
            f"the shape {tuple(values.shape)}, and {count} visual tokens; only a tower whose "
            "patches become visual tokens one to one can be read"
        )
    tokens = values.new_zeros(*placeholders.shape, values.shape[-1])
    tokens[placeholders.to(values.device)] = values[:, class_tokens:].flatten(0, 1)
    return tokens


def _last_linear(subject: Subject, layer: int, hook_point: HookPoint) -> Any:
    block = tower_blocks(subject, hook_point)[layer]
    if hook_point != VISION:
        return linear_layers(block)[-1]
    ffn = find_ffn(block)
    if ffn is None:
        raise SubjectError(
            f"capture.hook_point: layer {layer} of the vision tower of {subject.settings.model!r} "
            "has no FFN that is recognized; choose other layers in capture.layers"
        )
    return ffn.down


def _tower(subject: Subject) -> tuple[Any, Sequence[Any]]:
    """Return the vision tower, and its layers: the longest list of modules with an FFN outside of
    the decoder."""
    of_decoder = {id(part) for part in subject.decoder.modules()}
    found: list[tuple[Any, Sequence[Any]]] = []
    for child in subject.body.children():
        found += [
            (child, part)
            for part in child.modules()
            if isinstance(part, torch.nn.ModuleList)
            and id(part) not in of_decoder
            and len(part)
            and all(find_ffn(layer) is not None for layer in part)
        ]
    if not found:
        raise SubjectError(
            f"capture.hook_point: {subject.settings.model!r} has no vision tower whose layers have "
            "an FFN that is recognized; set another hook point"
        )
    return max(found, key=lambda one: len(one[1]))


def _n_used(subject: Subject, n_layers: int) -> int:
    """Return the number of layers up to the last one whose output becomes image features."""
    chosen = getattr(subject.model.config, "vision_feature_layer", None)
    if chosen is None:
        return n_layers
    # 0 is the input of the first layer.
    states = [chosen] if isinstance(chosen, int) else list(chosen)
    return max(state if state >= 0 else n_layers + 1 + state for state in states)
