"""Read neurons' activations with hooks, and always remove the hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from neuron_atlas.tasks.subject.settings import HookPoint, SubjectError
from neuron_atlas.tasks.subject.subject import Subject

Observe = Callable[[int, torch.Tensor], None]


def decoder_layers(subject: Subject) -> Sequence[Any]:
    """Return the language model's decoder layers, in order. Raises SubjectError."""
    layers = getattr(subject.model.model.get_decoder(), "layers", None)
    if layers is None:
        raise SubjectError(
            f"subject.model: the language model of {subject.settings.model!r} has no list of "
            "decoder layers at `layers`, as transformers' gated decoders do; its neurons cannot "
            "be read"
        )
    return layers


def neurons_per_layer(subject: Subject) -> int:
    """Return the number of neurons per FFN, the same in every layer."""
    return int(subject.model.config.get_text_config().intermediate_size)


def layer_device(subject: Subject, layer: int) -> torch.device:
    """Return the device of a decoder layer; a model may be spread over several GPUs."""
    return next(iter(decoder_layers(subject)[layer].parameters())).device


def check_layers(subject: Subject, layers: Sequence[int]) -> None:
    """Raise SubjectError unless every layer exists and has the hook points."""
    count = len(decoder_layers(subject))
    unknown = [layer for layer in layers if not 0 <= layer < count]
    if unknown:
        raise SubjectError(
            f"capture.layers: there is no layer {unknown[0]}; "
            f"{subject.settings.model!r} has layers 0 to {count - 1}"
        )
    for layer in layers:
        mlp = getattr(decoder_layers(subject)[layer], "mlp", None)
        if not all(hasattr(mlp, part) for part in ("gate_proj", "act_fn", "down_proj")):
            raise SubjectError(
                f"capture.hook_point: layer {layer} of {subject.settings.model!r} has no gated FFN"
            )


@contextmanager
def observing(
    subject: Subject, layers: Sequence[int], hook_point: HookPoint, observe: Observe
) -> Iterator[None]:
    """Within the block, call `observe(layer, activations [batch, tokens, neurons])` in every
    forward pass.

    hook_point: `gate` is act_fn(gate_proj x), as in the paper; `gate_up` is the input of
    down_proj, gate times up. Raises SubjectError if a layer has no such hook point.
    """
    check_layers(subject, layers)
    handles = []
    try:
        for layer in layers:
            mlp = decoder_layers(subject)[layer].mlp
            if hook_point == "gate":
                handles.append(mlp.act_fn.register_forward_hook(_after(layer, observe)))
            else:
                handles.append(mlp.down_proj.register_forward_pre_hook(_before(layer, observe)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _after(layer: int, observe: Observe) -> Callable[..., None]:
    def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
        observe(layer, output)

    return hook


def _before(layer: int, observe: Observe) -> Callable[..., None]:
    def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        observe(layer, inputs[0])

    return hook
