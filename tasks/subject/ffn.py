"""Find a decoder layer's feed-forward network by its structure, not by the names of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_ACTIVATIONS = ("transformers.activations", "torch.nn.modules.activation")
"""Modules of Python that define activation functions."""


@dataclass(frozen=True)
class Ffn:
    """The parts of one feed-forward network.

    act: the module of its activation function, whose output is act_fn(gate); None if the network
    applies it without a module. down: the last linear layer. neurons: width of down's input. up:
    the linear layer whose last `neurons` outputs multiply the output of the activation function:
    of two layers the second in order of definition, or the fused one; None without a gate.
    """

    act: Any | None
    down: Any
    neurons: int
    up: Any | None = None


def find_ffn(layer: Any) -> Ffn | None:
    """Return the feed-forward network of a decoder layer, or None if there is none.

    Three structures are recognized, from `hidden` to `neurons` to `hidden` features: two linear
    layers and one back (LLaMA's gate_proj, up_proj and down_proj), one of twice the width and one
    back (the fused gate_up_proj of Phi-3 and GLM), and one and one back around an activation
    function (fc1 and fc2 of Phi and OPT). If a layer has several, the gated ones come first, and
    then the widest.
    """
    found = [ffn for part in layer.modules() if (ffn := _as_ffn(part)) is not None]
    return max(found, key=lambda ffn: (ffn.up is not None, ffn.neurons), default=None)


def expert_mixture(layer: Any) -> str:
    """Return the class name of a layer's mixture of experts, or "" if it has none."""
    for part in layer.modules():
        if any(name in ("experts", "local_experts") for name, _ in part.named_children()):
            return type(part).__name__
    return ""


def own_activation(part: Any) -> Any | None:
    """Return the only activation function among a module's children, or None."""
    acts = [child for child in part.children() if type(child).__module__ in _ACTIVATIONS]
    return acts[0] if len(acts) == 1 else None


def _as_ffn(part: Any) -> Ffn | None:
    linear = [child for child in part.children() if _is_linear(child)]
    act = own_activation(part)
    for down in reversed(linear):
        others = [one for one in linear if one is not down]
        hidden, neurons = down.out_features, down.in_features
        reads_hidden = all(one.in_features == hidden for one in others)
        widths = sorted(one.out_features for one in others)
        if not reads_hidden:
            continue
        if widths == [neurons, neurons]:
            return Ffn(act, down, neurons, up=others[1])
        if act is not None and widths == [2 * neurons]:
            return Ffn(act, down, neurons, up=others[0])
        if act is not None and widths == [neurons]:
            return Ffn(act, down, neurons)
    return None


def _is_linear(part: Any) -> bool:
    """Return whether a module is a linear layer, quantized or not."""
    return hasattr(part, "in_features") and hasattr(part, "out_features")


def linear_layers(part: Any) -> list[Any]:
    """Return the linear layers in a module, in order of definition."""
    return [one for one in part.modules() if _is_linear(one)]
