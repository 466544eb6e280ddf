"""Read neurons' activations with hooks, and always remove the hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from neuron_atlas.tasks.subject.ffn import Ffn, expert_mixture, find_ffn, output_features
from neuron_atlas.tasks.subject.sae.attach import hooking_latents, reading_active, sae_of
from neuron_atlas.tasks.subject.sae.settings import SAE
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents
from neuron_atlas.tasks.subject.settings import MODULE_PREFIX, HookPoint, SubjectError
from neuron_atlas.tasks.subject.subject import Subject

Observe = Callable[[int, torch.Tensor], None]
See = Callable[[torch.Tensor], torch.Tensor | None]


def decoder_layers(subject: Subject) -> Sequence[Any]:
    """Return the language model's decoder layers, in order. Raises SubjectError."""
    return subject.decoder.layers


def neurons_per_layer(
    subject: Subject, hook_point: HookPoint = "gate", layers: Sequence[int] | None = None
) -> int:
    """Return the number of neurons at a hook point of the widest layer. layers: None for all.

    Raises SubjectError if one of the layers has no such hook point.
    """
    chosen = range(len(decoder_layers(subject))) if layers is None else layers
    return max(_width(subject, layer, hook_point) for layer in chosen)


def layer_device(subject: Subject, layer: int) -> torch.device:
    """Return the device of a decoder layer; a model may be spread over several GPUs."""
    return next(iter(decoder_layers(subject)[layer].parameters())).device


def check_layers(subject: Subject, layers: Sequence[int], hook_point: HookPoint = "gate") -> None:
    """Raise SubjectError unless every layer exists and has the hook point."""
    count = len(decoder_layers(subject))
    unknown = [layer for layer in layers if not 0 <= layer < count]
    if unknown:
        raise SubjectError(
            f"capture.layers: there is no layer {unknown[0]}; "
            f"{subject.settings.model!r} has layers 0 to {count - 1}"
        )
    for layer in layers:
        if hook_point == SAE:
            sae_of(subject, layer)
        else:
            _hooked(subject, layer, hook_point)


@contextmanager
def observing(
    subject: Subject, layers: Sequence[int], hook_point: HookPoint, observe: Observe
) -> Iterator[None]:
    """Within the block, call `observe(layer, activations [batch, tokens, neurons])` in every
    forward pass.

    hook_point: `gate` is the output of the FFN's activation function, as in the paper; `gate_up` is
    the input of its last linear layer, gate times up; `module:PATH` is the output of a module of
    the layer, such as `module:mlp`; `sae` is the latents of the layer's SAE. Raises SubjectError if
    a layer has no such hook point.
    """
    check_layers(subject, layers, hook_point)
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(hooking(subject, layer, hook_point, partial(observe, layer)))
        yield


@contextmanager
def observing_active(
    subject: Subject,
    layers: Sequence[int],
    hook_point: HookPoint,
    observe: Callable[[int, torch.Tensor | SparseLatents], None],
) -> Iterator[None]:
    """Do as `observing`, but call `observe` with the active latents only of each top-k SAE."""
    check_layers(subject, layers, hook_point)
    with ExitStack() as hooks:
        for layer in layers:
            see = partial(observe, layer)
            if hook_point == SAE and sae_of(subject, layer).is_sparse:
                hooks.enter_context(reading_active(subject, layer, see))
            else:
                hooks.enter_context(hooking(subject, layer, hook_point, see))
        yield


@contextmanager
def hooking(subject: Subject, layer: int, hook_point: HookPoint, see: See) -> Iterator[None]:
    """Within the block, call `see(activations [batch, tokens, neurons])` in every forward pass. A
    tensor that it returns takes their place.

    Raises SubjectError if the layer has no such hook point.
    """
    if hook_point == SAE:
        with hooking_latents(subject, layer, see):
            yield
        return
    part = _hooked(subject, layer, hook_point)
    n_samples = [1]

    def note_batch(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        n_samples[0] = (args[0] if args else kwargs["hidden_states"]).shape[-3]

    def seen(values: torch.Tensor) -> torch.Tensor | None:
        # Some FFNs, such as OPT's, read the tokens of all samples in one dimension.
        is_flat = values.dim() == 2
        changed = see(values.unflatten(0, (n_samples[0], -1)) if is_flat else values)
        return changed.flatten(0, 1) if is_flat and changed is not None else changed

    def before(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = seen(inputs[0])
        return None if changed is None else (changed, *inputs[1:])

    def after(_module: Any, _inputs: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return seen(output)
        changed = seen(output[0])
        return None if changed is None else (changed, *output[1:])

    with ExitStack() as hooks:
        block = decoder_layers(subject)[layer]
        hooks.callback(block.register_forward_pre_hook(note_batch, with_kwargs=True).remove)
        if hook_point == "gate_up":
            hooks.callback(part.register_forward_pre_hook(before).remove)
        else:
            hooks.callback(part.register_forward_hook(after).remove)
        yield


def ffn_of(subject: Subject, layer: int) -> Ffn:
    """Return the feed-forward network of a layer. Raises SubjectError."""
    block = decoder_layers(subject)[layer]
    mixture = expert_mixture(block)
    if mixture:
        raise SubjectError(
            f"capture.hook_point: layer {layer} of {subject.settings.model!r} is a mixture of "
            f"experts ({mixture}), whose neurons are not read; choose other layers in "
            "capture.layers, or read the output of a module with capture.hook_point=module:PATH"
        )
    ffn = find_ffn(block)
    if ffn is None:
        raise SubjectError(
            f"capture.hook_point: layer {layer} of {subject.settings.model!r} has no FFN that is "
            "recognized: linear layers around an activation function; read the output of a module "
            "with capture.hook_point=module:PATH"
        )
    return ffn


def final_norm(subject: Subject) -> Any | None:
    """Return the norm that the language model applies after its last layer; None if it has none."""
    norms = [part for name, part in subject.decoder.named_children() if "norm" in name]
    return norms[-1] if norms else None


def _hooked(subject: Subject, layer: int, hook_point: HookPoint) -> Any:
    """Return the module of a layer that a hook point reads: its output, or for `gate_up` its input.
    Raises SubjectError."""
    if hook_point.startswith(MODULE_PREFIX):
        return _named_module(subject, layer, hook_point.removeprefix(MODULE_PREFIX))
    ffn = ffn_of(subject, layer)
    if hook_point == "gate_up":
        return ffn.down
    if ffn.act is None:
        raise SubjectError(
            f"capture.hook_point: the FFN of layer {layer} of {subject.settings.model!r} applies "
            "its activation function without a module, so `gate` cannot be read; set "
            "capture.hook_point=gate_up, or module:PATH"
        )
    return ffn.act


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
    if not hook_point.startswith(MODULE_PREFIX):
        return ffn_of(subject, layer).neurons
    part = _hooked(subject, layer, hook_point)
    # The last linear layer, in order of definition, makes a module's output.
    widths = list(output_features(part))
    weight = getattr(part, "weight", None)
    hidden = int(subject.model.config.get_text_config().hidden_size)
    return widths[-1] if widths else int(weight.shape[0]) if weight is not None else hidden
