"""Read neurons' activations with hooks, and always remove the hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch

from neuron_atlas.tasks.artifacts import ExpertLayout
from neuron_atlas.tasks.subject.dense_weight import dense_weight
from neuron_atlas.tasks.subject.expert_hooks import (
    hooking_mixture,
    observing_experts,
    observing_mixture,
)
from neuron_atlas.tasks.subject.ffn import Ffn, expert_mixture, find_ffn, linear_layers
from neuron_atlas.tasks.subject.mixture import Mixture, find_mixture
from neuron_atlas.tasks.subject.module_hook import Point, See, hooking_ffn, hooking_module
from neuron_atlas.tasks.subject.sae.attach import hooking_latents, reading_active, sae_of
from neuron_atlas.tasks.subject.sae.settings import SAE
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents
from neuron_atlas.tasks.subject.settings import MODULE_PREFIX, TOWERS, HookPoint, SubjectError
from neuron_atlas.tasks.subject.subject import Subject
from neuron_atlas.tasks.subject.towers import observing_patches, tower_blocks, tower_neurons

Observe = Callable[[int, torch.Tensor], None]
SeeUp = Callable[[torch.Tensor, torch.Tensor], None]


def decoder_layers(subject: Subject) -> Sequence[Any]:
    """Return the language model's decoder layers, in order. Raises SubjectError."""
    return subject.decoder.layers


def layers_of(subject: Subject, hook_point: HookPoint) -> Sequence[Any]:
    """Return the layers that have a hook point: decoder layers, layers of the vision tower, or the
    projector as a single one. Raises SubjectError."""
    return tower_blocks(subject, hook_point) if hook_point in TOWERS else decoder_layers(subject)


def neurons_per_layer(
    subject: Subject, hook_point: HookPoint = "gate", layers: Sequence[int] | None = None
) -> int:
    """Return the number of neurons at a hook point of the widest layer. layers: None for all.

    Raises SubjectError if one of the layers has no such hook point.
    """
    chosen = range(len(layers_of(subject, hook_point))) if layers is None else layers
    return max(_width(subject, layer, hook_point) for layer in chosen)


def neurons_of_parts(subject: Subject, hook_point: HookPoint, layer: int) -> tuple[int, ...]:
    """Return the neurons of each expert of a layer, the shared one last; without experts one
    number, of the whole layer. Raises SubjectError."""
    mixture = mixture_of(subject, layer, hook_point)
    return mixture.layout.widths if mixture else (_width(subject, layer, hook_point),)


def layer_device(subject: Subject, layer: int, hook_point: HookPoint = "gate") -> torch.device:
    """Return the device of a layer; a model may be spread over several GPUs."""
    return next(iter(layers_of(subject, hook_point)[layer].parameters())).device


def check_layers(subject: Subject, layers: Sequence[int], hook_point: HookPoint = "gate") -> None:
    """Raise SubjectError unless every layer exists and has the hook point."""
    count = len(layers_of(subject, hook_point))
    unknown = [layer for layer in layers if not 0 <= layer < count]
    if unknown:
        place = " that its image features come from" if hook_point in TOWERS else ""
        raise SubjectError(
            f"capture.layers: there is no layer {unknown[0]}; "
            f"{subject.settings.model!r} has layers 0 to {count - 1}{place}"
        )
    for layer in layers:
        _check(subject, layer, hook_point)


@contextmanager
def observing(
    subject: Subject,
    layers: Sequence[int],
    hook_point: HookPoint,
    observe: Observe,
    absent: float = 0.0,
) -> Iterator[None]:
    """Within the block, call `observe(layer, activations [batch, tokens, neurons])` in every
    forward pass.

    hook_point: `gate` is the output of the FFN's activation function, as in the paper; `gate_up` is
    the input of its last linear layer, gate times up; `module:PATH` is the output of a module of
    the layer, such as `module:mlp`; `sae` is the latents of the layer's SAE; `vision` and
    `projector` are the activations of each visual token's patch, and 0 at all other tokens. absent:
    stands where a token was not routed to an expert. Raises SubjectError if a layer has no such
    hook point.
    """
    check_layers(subject, layers, hook_point)
    with ExitStack() as hooks:
        for layer in layers:
            see = partial(observe, layer)
            if mixture := mixture_of(subject, layer, hook_point):
                block, point = decoder_layers(subject)[layer], cast(Point, hook_point)
                hooks.enter_context(observing_mixture(block, mixture, point, see, absent))
            else:
                hooks.enter_context(hooking(subject, layer, hook_point, see))
        yield


@contextmanager
def observing_active(
    subject: Subject,
    layers: Sequence[int],
    hook_point: HookPoint,
    observe: Callable[[int, torch.Tensor | SparseLatents], None],
    observe_expert: Callable[[int, int, torch.Tensor, torch.Tensor | None], None] | None = None,
) -> Iterator[None]:
    """Do as `observing`, but call `observe` with the active latents only of each top-k SAE, and in
    place of it, if given, `observe_expert` with a layer and the arguments of ObserveExpert."""
    check_layers(subject, layers, hook_point)
    with ExitStack() as hooks:
        for layer in layers:
            mixture = mixture_of(subject, layer, hook_point)
            if hook_point == SAE and sae_of(subject, layer).is_sparse:
                hooks.enter_context(reading_active(subject, layer, partial(observe, layer)))
            elif mixture and observe_expert:
                block, point = decoder_layers(subject)[layer], cast(Point, hook_point)
                see = partial(observe_expert, layer)
                hooks.enter_context(observing_experts(block, mixture, point, see))
            else:
                hooks.enter_context(observing(subject, [layer], hook_point, observe))
        yield


@contextmanager
def hooking(subject: Subject, layer: int, hook_point: HookPoint, see: See) -> Iterator[None]:
    """Within the block, call `see(activations [batch, tokens, neurons])` in every forward pass. A
    tensor that it returns takes their place, except at `vision` and `projector`.

    A layer with experts calls it once for each of its parts, as hooking_mixture does. Raises
    SubjectError if the layer has no such hook point.
    """
    _check(subject, layer, hook_point)
    block, point = layers_of(subject, hook_point)[layer], cast(Point, hook_point)
    if hook_point == SAE:
        hooked = hooking_latents(subject, layer, see)
    elif hook_point in TOWERS:
        hooked = observing_patches(subject, layer, hook_point, see)
    elif is_module(hook_point):
        path = hook_point.removeprefix(MODULE_PREFIX)
        hooked = hooking_module(block, _named_module(subject, layer, path), see)
    elif mixture := mixture_of(subject, layer):
        hooked = hooking_mixture(block, mixture, point, see)
    else:
        hooked = hooking_ffn(block, ffn_of(subject, layer), point, see)
    with hooked:
        yield


@contextmanager
def seeing_up(subject: Subject, layer: int, see: SeeUp) -> Iterator[None]:
    """Within the block, call `see(activations, up)`, both [batch, tokens, neurons], in every
    forward pass, whichever of the two the layer computes first; up is 1 for an FFN without a gate.

    A layer with experts calls it once for each of its parts, with zeros for the others. Raises
    SubjectError if the layer has no hook point `gate`.
    """
    _check(subject, layer, "gate")
    block, mixture = decoder_layers(subject)[layer], mixture_of(subject, layer)
    seen: dict[Point, torch.Tensor] = {}

    def note(point: Point, values: torch.Tensor) -> None:
        seen[point] = values
        if len(seen) == 2:
            activations = seen.pop("gate")
            see(activations, seen.pop("up").reshape(activations.shape))

    points: tuple[Point, ...] = ("gate", "up")
    with ExitStack() as hooks:
        for point in points:
            if mixture is None:
                hooked = hooking_ffn(block, ffn_of(subject, layer), point, partial(note, point))
            else:
                hooked = hooking_mixture(block, mixture, point, partial(note, point))
            hooks.enter_context(hooked)
        yield


def is_module(hook_point: HookPoint) -> bool:
    """Return whether a hook point names a module."""
    return hook_point.startswith(MODULE_PREFIX)


def mixture_of(subject: Subject, layer: int, hook_point: HookPoint = "gate") -> Mixture | None:
    """Return the experts of a layer; None if it has none, or if the hook point is of no FFN. Raises
    SubjectError if it has experts that are not recognized."""
    if hook_point not in ("gate", "gate_up"):
        return None
    block = decoder_layers(subject)[layer]
    mixture = find_mixture(block)
    if mixture is None and (name := expert_mixture(block)):
        raise SubjectError(
            f"capture.hook_point: layer {layer} of {subject.settings.model!r} is a mixture of "
            f"experts ({name}), whose neurons are not read; choose other layers in "
            "capture.layers, or read the output of a module with capture.hook_point=module:PATH"
        )
    return mixture


def ffn_of(subject: Subject, layer: int) -> Ffn:
    """Return the feed-forward network of a layer without experts. Raises SubjectError."""
    ffn = find_ffn(decoder_layers(subject)[layer])
    if ffn is None:
        raise SubjectError(
            f"capture.hook_point: layer {layer} of {subject.settings.model!r} has no FFN that is "
            "recognized: linear layers around an activation function; read the output of a module "
            "with capture.hook_point=module:PATH"
        )
    return ffn


def write_columns(subject: Subject, layer: int) -> torch.Tensor:
    """Return what each neuron of a layer writes to the hidden state: float32 [neurons, width].
    Raises SubjectError."""
    if mixture := mixture_of(subject, layer):
        return mixture.columns(subject.model.dtype)
    return dense_weight(ffn_of(subject, layer).down, subject.model.dtype).float().T


def expert_layouts(subject: Subject, hook_point: HookPoint) -> dict[int, ExpertLayout]:
    """Return how the neurons at a hook point are numbered in the layers with experts."""
    if hook_point not in ("gate", "gate_up"):
        return {}
    found = enumerate(map(find_mixture, decoder_layers(subject)))
    return {layer: mixture.layout for layer, mixture in found if mixture}


def final_norm(subject: Subject) -> Any | None:
    """Return the norm that the language model applies after its last layer; None if it has none."""
    norms = [part for name, part in subject.decoder.named_children() if "norm" in name]
    return norms[-1] if norms else None


def _check(subject: Subject, layer: int, hook_point: HookPoint) -> None:
    """Raise SubjectError if a layer has no such hook point."""
    if hook_point == SAE:
        sae_of(subject, layer)
        return
    if hook_point in TOWERS:
        tower_neurons(subject, layer, hook_point)
        return
    if is_module(hook_point):
        _named_module(subject, layer, hook_point.removeprefix(MODULE_PREFIX))
        return
    mixture = mixture_of(subject, layer)
    parts = [*mixture.routed, mixture.shared] if mixture else [ffn_of(subject, layer)]
    if hook_point == "gate" and any(part is not None and part.act is None for part in parts):
        raise SubjectError(
            f"capture.hook_point: the FFN of layer {layer} of {subject.settings.model!r} applies "
            "its activation function without a module, so `gate` cannot be read; set "
            "capture.hook_point=gate_up, or module:PATH"
        )
    if mixture and hook_point == "gate_up" and not all(one.is_indexed for one in mixture.routed):
        raise SubjectError(
            f"capture.hook_point: the experts of layer {layer} of {subject.settings.model!r} read "
            "every token, and `gate_up` cannot be read; set capture.hook_point=gate"
        )


def _named_module(subject: Subject, layer: int, path: str) -> Any:
    module = decoder_layers(subject)[layer]
    try:
        return module.get_submodule(path)
    except AttributeError:
        names = ", ".join(name for name, _ in module.named_modules() if name.count(".") < 2)
        raise SubjectError(
            f"capture.hook_point: layer {layer} of {subject.settings.model!r} has no module "
            f"{path!r}; it has {names.lstrip(', ')}"
        ) from None


def _width(subject: Subject, layer: int, hook_point: HookPoint) -> int:
    if hook_point == SAE:
        return sae_of(subject, layer).latents
    if hook_point in TOWERS:
        return tower_neurons(subject, layer, hook_point)
    if not is_module(hook_point):
        mixture = mixture_of(subject, layer)
        return mixture.layout.neurons if mixture else ffn_of(subject, layer).neurons
    part = _named_module(subject, layer, hook_point.removeprefix(MODULE_PREFIX))
    # The last linear layer, in order of definition, makes a module's output.
    widths = [int(one.out_features) for one in linear_layers(part)]
    weight = getattr(part, "weight", None)
    hidden = int(subject.model.config.get_text_config().hidden_size)
    return widths[-1] if widths else int(weight.shape[0]) if weight is not None else hidden
