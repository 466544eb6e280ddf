"""One forward and one backward pass: activation times gradient of every neuron, by role."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from neuron_atlas.tasks.artifacts import ROLES
from neuron_atlas.tasks.effects.losses import text_losses
from neuron_atlas.tasks.subject.batches import Batch
from neuron_atlas.tasks.subject.encode import TEXT
from neuron_atlas.tasks.subject.hook_points import (
    check_layers,
    decoder_layers,
    hooking,
    seeing_up,
)
from neuron_atlas.tasks.subject.settings import HookPoint
from neuron_atlas.tasks.subject.subject import Subject


@dataclass(frozen=True)
class FirstOrder:
    """First-order sums of the neurons of one layer, for each sample of a batch.

    products: sum over the tokens of a role of activation times gradient. gradients: sum of the
    gradients. Both float32 [batch, roles, neurons], in nats per text token of the sample.
    """

    products: torch.Tensor
    gradients: torch.Tensor


ObserveUp = Callable[[int, torch.Tensor, torch.Tensor], None]
"""Called with the layer, its activations and its up-projection, both [batch, tokens, neurons]."""


@dataclass
class _Pass:
    """State of one forward and backward pass."""

    membership: torch.Tensor
    per_token: torch.Tensor
    found: dict[int, FirstOrder] = field(default_factory=dict)
    is_forward: bool = True


@contextmanager
def watching(
    subject: Subject,
    layers: Sequence[int],
    hook_point: HookPoint,
    observe_up: ObserveUp | None = None,
    checkpoints: bool = False,
) -> Iterator[Callable[[Batch], Mapping[int, FirstOrder]]]:
    """Yield a function that runs a batch forward and backward and returns the sums of each layer.

    The weights get no gradients, so a backward pass costs about as much as a forward pass.
    checkpoints: store only the input of each decoder layer, and compute the layer a second time in
    the backward pass. observe_up: called in every forward pass; the
    up-projection counts as 1 at other hook points than `gate`.
    Raises SubjectError if a layer has no hook point.
    """
    check_layers(subject, layers, hook_point)
    state: list[_Pass] = []
    with ExitStack() as undo:
        undo.enter_context(_frozen(subject))
        for layer in layers:
            watch = partial(_watch, state, layer)
            undo.enter_context(hooking(subject, layer, hook_point, watch))
            if observe_up is not None and hook_point == "gate":
                undo.enter_context(_pairing(subject, layer, state, observe_up))
            elif observe_up is not None:
                alone = partial(_alone, state, layer, observe_up)
                undo.enter_context(hooking(subject, layer, hook_point, alone))
        if checkpoints:
            undo.enter_context(_checkpointed(decoder_layers(subject)))

        def run(batch: Batch) -> Mapping[int, FirstOrder]:
            membership = torch.stack([batch.roles == role for role in range(len(ROLES))], 1).float()
            n_text = (batch.roles == TEXT).sum(1).clamp(min=1)
            current = _Pass(membership, 1 / n_text.float())
            state[:] = [current]
            with torch.enable_grad():
                total = text_losses(subject, batch).sum()
                current.is_forward = False
                total.backward()
            state.clear()
            return current.found

        yield run


def _alone(state: list[_Pass], layer: int, observe: ObserveUp, activations: torch.Tensor) -> None:
    # A checkpointed layer runs again in the backward pass, and is observed only once.
    if state[0].is_forward:
        values = activations.detach()
        observe(layer, values, torch.ones_like(values))


@contextmanager
def _pairing(
    subject: Subject, layer: int, state: list[_Pass], observe: ObserveUp
) -> Iterator[None]:
    """Within the block, call `observe` in every forward pass with the layer's activations and its
    up-projection."""

    def see(activations: torch.Tensor, up: torch.Tensor) -> None:
        # A checkpointed layer runs again in the backward pass, and is observed only once.
        if state[0].is_forward:
            observe(layer, activations.detach(), up.detach())

    with seeing_up(subject, layer, see):
        yield


class _Watched(torch.autograd.Function):
    """The identity, which hands the activations and their gradient over in the backward pass.

    The activations are saved as autograd saves tensors, so checkpointing applies to them.
    """

    @staticmethod
    def forward(ctx: Any, activations: torch.Tensor, collect: Any) -> torch.Tensor:
        ctx.save_for_backward(activations)
        ctx.collect = collect
        return activations.view_as(activations)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (activations,) = ctx.saved_tensors
        ctx.collect(activations, gradients[0])
        return gradients[0], None


def _watch(state: list[_Pass], layer: int, activations: torch.Tensor) -> torch.Tensor:
    (current,) = state
    if not activations.requires_grad:  # The lowest layer: the graph starts here.
        activations = activations.detach().requires_grad_()

    def collect(values: torch.Tensor, gradients: torch.Tensor) -> None:
        membership = current.membership.to(values.device)
        gradients = gradients.float()
        scale = current.per_token.to(values.device)[:, None, None]
        products = torch.bmm(membership, values.float() * gradients) * scale
        gradients = torch.bmm(membership, gradients) * scale
        if layer in current.found:  # Each part of a layer with experts adds its own neurons.
            products += current.found[layer].products
            gradients += current.found[layer].gradients
        current.found[layer] = FirstOrder(products, gradients)

    return _Watched.apply(activations, collect)


@contextmanager
def _frozen(subject: Subject) -> Iterator[None]:
    """Within the block, no weight requires a gradient."""
    weights = [one for one in subject.model.parameters() if one.requires_grad]
    for one in weights:
        one.requires_grad_(False)
    try:
        yield
    finally:
        for one in weights:
            one.requires_grad_(True)


@contextmanager
def _checkpointed(layers: Sequence[Any]) -> Iterator[None]:
    """Within the block, each layer stores only its input for the backward pass."""
    originals = [layer.forward for layer in layers]
    for layer, forward in zip(layers, originals, strict=True):
        layer.forward = partial(checkpoint, forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
