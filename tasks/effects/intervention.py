"""Change neurons' activations during forward passes and generation, and always undo it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from neuron_atlas.tasks.effects.changes import (
    Change,
    How,
    Intervention,
    InterventionError,
    apply_changes,
    compile_changes,
)
from neuron_atlas.tasks.subject.batches import PADDING
from neuron_atlas.tasks.subject.encode import TEXT
from neuron_atlas.tasks.subject.hook_points import (
    check_layers,
    final_norm,
    hooking,
    layer_device,
    neurons_per_layer,
)
from neuron_atlas.tasks.subject.settings import TOWERS, HookPoint, SubjectError
from neuron_atlas.tasks.subject.subject import Subject

__all__ = ["How", "Intervention", "InterventionError", "intervening"]


@contextmanager
def intervening(
    subject: Subject,
    interventions: Sequence[Intervention],
    hook_point: HookPoint = "gate",
    roles: torch.Tensor | None = None,
    in_place: bool = False,
) -> Iterator[None]:
    """Within the block, apply the interventions, in order, in every forward pass of the subject.

    Works for `forward_body`, for the whole model, and for generation with or without a cache.

    hook_point: where the activations are, as in `observing`. An observer that is entered outside
    this block sees activations before the interventions, one that is entered inside after them.
    roles: int8 [batch, tokens], the role of every token from the start of the sequence; needed when
    an intervention names roles. Tokens beyond these are text: generation adds them.
    in_place: change the model's own tensors, which is faster; only without gradients, and if no
    observer keeps a tensor.
    Raises InterventionError before the block for a layer, neuron or value that cannot be used, and
    at the end of the block if the subject's output has overflowed.
    """
    _check(subject, interventions, hook_point, roles)
    by_layer: dict[int, list[Intervention]] = {}
    for one in interventions:
        by_layer.setdefault(one.layer, []).append(one)
    place = _Place(roles)
    with ExitStack() as hooks:
        before = subject.decoder.register_forward_pre_hook(place.before_pass, with_kwargs=True)
        hooks.callback(before.remove)
        if (norm := final_norm(subject)) is not None:
            hooks.callback(norm.register_forward_pre_hook(place.before_norm).remove)
        for layer, chosen in by_layer.items():
            changes = compile_changes(chosen, layer_device(subject, layer), subject.model.dtype)
            change = partial(_change, place, changes, in_place)
            hooks.enter_context(hooking(subject, layer, hook_point, change))
        yield
    if place.has_overflowed():
        raise InterventionError(
            f"the subject's output overflows with {_describe(interventions)}: use a smaller value"
        )


class _Place:
    """Where in the sequences the current forward pass is, and whether any pass has overflowed."""

    def __init__(self, roles: torch.Tensor | None) -> None:
        self._roles = roles
        self._start = 0
        self._overflows: torch.Tensor | None = None

    def before_pass(self, _module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        self._start = 0 if cache is None else int(cache.get_seq_length())

    def before_norm(self, _module: Any, args: tuple[torch.Tensor, ...]) -> None:
        """Look for overflow in the residual stream, whose square the final norm computes."""
        hidden = args[0].detach()
        overflows = ~hidden.float().square().sum(-1).isfinite()
        roles = self.roles_of(hidden)
        if roles is not None:
            overflows &= roles != PADDING
        found = overflows.any()
        self._overflows = found if self._overflows is None else self._overflows | found

    def roles_of(self, activations: torch.Tensor) -> torch.Tensor | None:
        """Return the roles int8 [batch, tokens] of a pass over [batch, tokens, ...]."""
        if self._roles is None:
            return None
        n_rows, n_tokens = activations.shape[:2]
        if n_rows != len(self._roles):
            raise InterventionError(
                f"roles are given for {len(self._roles)} sample(s), and the batch has {n_rows}"
            )
        given = self._roles[:, self._start : self._start + n_tokens].to(activations.device)
        missing = given.new_full((n_rows, n_tokens - given.shape[1]), TEXT)
        return torch.cat([given, missing], 1)

    def has_overflowed(self) -> bool:
        return self._overflows is not None and bool(self._overflows)


def _change(
    place: _Place, changes: Sequence[Change], in_place: bool, activations: torch.Tensor
) -> torch.Tensor:
    return apply_changes(changes, activations, place.roles_of(activations), in_place)


def _check(
    subject: Subject,
    interventions: Sequence[Intervention],
    hook_point: HookPoint,
    roles: torch.Tensor | None,
) -> None:
    largest = torch.finfo(subject.model.dtype).max
    if hook_point in TOWERS:
        raise InterventionError(f"neurons at {hook_point!r} are read, and cannot be changed")
    try:
        check_layers(subject, sorted({one.layer for one in interventions}), hook_point)
    except SubjectError as error:
        raise InterventionError(str(error).partition(": ")[2]) from error
    for one in interventions:
        count = neurons_per_layer(subject, hook_point, [one.layer])
        for neuron in one.neurons:
            if not 0 <= neuron < count:
                raise InterventionError(
                    f"there is no neuron {one.layer}:{neuron}; layer {one.layer} of "
                    f"{subject.settings.model!r} has neurons 0 to {count - 1}"
                )
        if len(one.values) != len(one.neurons):
            raise InterventionError(
                f"layer {one.layer}: {len(one.values)} values for {len(one.neurons)} neurons"
            )
        for value in one.values:
            if not math.isfinite(value) or abs(value) > largest:
                raise InterventionError(
                    f"the value {value:g} of an intervention in layer {one.layer} is not a number "
                    f"of {str(subject.model.dtype).removeprefix('torch.')}"
                )
        if one.roles is not None and roles is None:
            raise InterventionError(
                "an intervention names roles of tokens; give intervening() the roles of the batch"
            )


def _describe(interventions: Sequence[Intervention]) -> str:
    first = interventions[0]
    more = f" and {len(interventions) - 1} more" if len(interventions) > 1 else ""
    return f"{first.how} {first.values[0]:g} in layer {first.layer}{more}"
