"""Find a decoder layer's mixture of experts by its structure, not by the names of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from neuron_atlas.tasks.artifacts import ExpertLayout
from neuron_atlas.tasks.subject.dense_weight import dense_weight
from neuron_atlas.tasks.subject.ffn import Ffn, find_ffn, own_activation


@dataclass(frozen=True)
class Experts:
    """Routed experts whose weights are stacked in one module, as transformers stores them.

    wide: what reads the hidden state, [experts, ...]. down: what writes it back, [experts, ...].
    act: the module of the activation function; None if it is applied without a module. is_indexed:
    the module is given the experts of each token; otherwise it is given every token for every
    expert, as zeros where a token was not routed. has_gate: `wide` makes gate and up.
    """

    module: Any
    wide: torch.Tensor
    down: torch.Tensor
    experts: int
    neurons: int
    act: Any | None
    is_indexed: bool
    has_gate: bool

    @property
    def is_transposed(self) -> bool:
        """Whether the weights of an expert are [inputs, outputs], and not [outputs, inputs]."""
        stated = getattr(self.module, "is_transposed", None)
        made = self.neurons * (2 if self.has_gate else 1)
        return bool(stated) if stated is not None else self.wide.shape[2] == made

    def columns(self) -> torch.Tensor:
        """Return what each neuron writes to the hidden state: float32 [neurons, width]."""
        columns = self.down.detach().float()
        return (columns if self.is_transposed else columns.transpose(1, 2)).flatten(0, 1)


@dataclass(frozen=True)
class Mixture:
    """The routed experts of a layer, in order of definition, and the FFN of every token next to
    them, if there is one."""

    routed: tuple[Experts, ...]
    shared: Ffn | None

    @property
    def layout(self) -> ExpertLayout:
        """How the layer's neurons are numbered."""
        return ExpertLayout(
            tuple((one.experts, one.neurons) for one in self.routed),
            self.shared.neurons if self.shared else 0,
        )

    def columns(self, dtype: torch.dtype) -> torch.Tensor:
        """Return what each neuron writes to the hidden state: float32 [neurons, width]. dtype: of
        the activations that the shared FFN reads."""
        parts = [one.columns() for one in self.routed]
        if self.shared is not None:
            parts.append(dense_weight(self.shared.down, dtype).float().T)
        return torch.cat(parts)


def find_mixture(layer: Any) -> Mixture | None:
    """Return the mixture of experts of a decoder layer, or None if none is recognized.

    Recognized are modules with stacked weights: `gate_up_proj` or `up_proj`, and `down_proj`, each
    [experts, ., .].
    """
    routed = tuple(found for part in layer.modules() if (found := _as_experts(part)) is not None)
    return Mixture(routed, find_ffn(layer)) if routed else None


def _as_experts(part: Any) -> Experts | None:
    has_gate = hasattr(part, "gate_up_proj")
    wide: Any = getattr(part, "gate_up_proj" if has_gate else "up_proj", None)
    down: Any = getattr(part, "down_proj", None)
    if not all(isinstance(one, torch.Tensor) and one.dim() == 3 for one in (wide, down)):
        return None
    # Of the sizes [width, neurons], in either order, only the neurons grow with a gate.
    doubled = 2 if has_gate else 1
    fits = [
        neurons
        for width, neurons in (down.shape[1:], reversed(down.shape[1:]))
        if sorted(wide.shape[1:]) == sorted((width, doubled * neurons))
    ]
    is_indexed = hasattr(part, "_apply_gate") and hasattr(part, "is_transposed")
    if not fits or len(wide) != len(down) or not (is_indexed or has_gate):
        return None
    stated = getattr(part, "is_transposed", None)
    if stated is not None:
        fits = [down.shape[1] if stated else down.shape[2]]
    return Experts(
        part, wide, down, len(down), int(fits[0]), own_activation(part), is_indexed, has_gate
    )
