"""Read the activations of routed experts, with the token and the expert of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from neuron_atlas.tasks.subject.mixture import Experts
from neuron_atlas.tasks.subject.module_hook import Point
from neuron_atlas.tasks.subject.settings import SubjectError

_SORTED = "grouped_mm"
"""The implementation of transformers that computes the rows of all experts together, sorted by
expert; the default where a model has a choice."""


@dataclass(frozen=True)
class Rows:
    """Activations of experts at the tokens that were routed to them: values [rows, neurons], with
    the flat index of the token in [samples, tokens] and the expert of each row, both int64 [rows].
    """

    values: torch.Tensor
    token: torch.Tensor
    expert: torch.Tensor

    def by_expert(self, experts: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Yield (expert, values, tokens) of each expert that has tokens, in ascending order."""
        if not len(self.token):
            return
        order = torch.argsort(self.expert * (self.token.max() + 1) + self.token)
        values, tokens = self.values[order], self.token[order]
        counts = torch.bincount(self.expert, minlength=experts).tolist()
        parts = zip(values.split(counts), tokens.split(counts), strict=True)
        for expert, (mine, its) in enumerate(parts):
            if len(its):
                yield expert, mine, its

    def dense(self, tokens: int, experts: int, absent: float = 0.0) -> torch.Tensor:
        """Return [tokens, experts * neurons], `absent` where a token was not routed."""
        size = (tokens, experts, self.values.shape[1])
        whole = self.values.new_full(size, absent)
        return whole.index_put((self.token, self.expert), self.values).flatten(1)

    def read(self, dense: torch.Tensor, experts: int) -> torch.Tensor:
        """Return the rows [rows, neurons] of what `dense` made."""
        return dense.unflatten(1, (experts, -1))[self.token, self.expert]


@dataclass
class Pass:
    """What a layer was given in the current forward pass.

    n_samples, n_tokens: of its input. marks: tensors [samples, tokens] that it was given, which may
    say which tokens go to which experts. inputs: what the part of the layer with the experts read.
    """

    n_samples: int = 1
    n_tokens: int = 1
    marks: tuple[torch.Tensor, ...] = ()
    inputs: torch.Tensor | None = None

    def start(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the arguments of the layer."""
        given = (*args, *kwargs.values())
        self.n_samples, self.n_tokens = _hidden(args, kwargs).shape[-3:-1]
        self.marks = tuple(
            one
            for one in given
            if isinstance(one, torch.Tensor)
            and not one.is_floating_point()
            and one.shape == (self.n_samples, self.n_tokens)
        )

    def enter(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the part of the layer with the experts reads."""
        self.inputs = _hidden(args, kwargs)


SeeRows = Callable[[Rows], torch.Tensor | None]


@contextmanager
def hooking_rows(experts: Experts, point: Point, current: Pass, see: SeeRows) -> Iterator[None]:
    """Within the block, call `see` in every forward pass of the experts. Values that it returns
    take the place of the rows' values. Raises SubjectError in a pass whose rows are not understood.
    """
    module = experts.module
    hook = _Hook(experts, point, current, see)
    with ExitStack() as undo:
        before = module.register_forward_pre_hook(hook.route, with_kwargs=True)
        undo.callback(before.remove)
        if experts.act is not None:
            undo.callback(experts.act.register_forward_hook(hook.after_activation).remove)
        if experts.is_indexed:
            undo.enter_context(_replaced(module, "_apply_gate", hook.around_gate))
            undo.enter_context(_sorted(module.config))
        yield


@dataclass(frozen=True)
class _Route:
    """Where the rows of the current pass come from.

    hidden: what the experts read, [tokens, width], or [experts, tokens, width] if they are given
    every token. given, expert: int64 [rows], the row of `hidden` and the expert. token: int64
    [rows], the flat index in [samples, tokens] of the layer.
    """

    hidden: torch.Tensor
    given: torch.Tensor
    expert: torch.Tensor
    token: torch.Tensor


class _Hook:
    """The hooks of one module of experts."""

    def __init__(self, experts: Experts, point: Point, current: Pass, see: SeeRows) -> None:
        self._experts = experts
        self._point = point
        self._current = current
        self._see = see
        self._route: _Route
        self._is_checked = False

    def route(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Find the token and the expert of each row."""
        experts = self._experts
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
        hidden = tensors[0].flatten(0, -2)
        indices = [one for one in tensors[1:] if not one.is_floating_point()]
        if experts.is_indexed and indices:
            # The same sort as in the model's pass, whose order of equal elements is the same.
            expert, order = torch.sort(indices[0].reshape(-1))
            given = order // indices[0].shape[-1]
        elif not experts.is_indexed and len(tensors) == 1:
            hidden = hidden.unflatten(0, (experts.experts, -1))
            expert, given = hidden.ne(0).any(-1).nonzero(as_tuple=True)
        else:
            raise _unknown(experts, "is not given the experts of each token")
        token = _tokens_of_layer(experts, self._current, hidden, given)
        self._route = _Route(hidden, given, expert, token)

    def after_activation(self, _module: Any, inputs: Any, output: torch.Tensor) -> Any:
        """Read the output of the activation function."""
        experts, point = self._experts, self._point
        if experts.is_indexed:
            if not experts.has_gate:
                self._check(inputs[0])
                if point == "up":
                    return self._seen(torch.ones_like(output))
            return self._seen(output) if point == "gate" or not experts.has_gate else None
        if output.shape[:2] != self._route.hidden.shape[:2]:
            raise _unknown(experts, "does not compute a row for each token and expert")
        if point == "up":
            self._seen(torch.bmm(self._route.hidden, experts.wide[..., experts.neurons :]))
            return None
        return self._seen(output)

    def around_gate(self, apply: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        """Return the function that multiplies gate and up, with what it reads and returns read."""

        def gated(both: torch.Tensor) -> torch.Tensor:
            self._check(both)
            if self._point == "up":
                is_concatenated = getattr(self._experts.module, "is_concatenated", True)
                self._seen(both.chunk(2, dim=-1)[1] if is_concatenated else both[..., 1::2])
            output = apply(both)
            changed = self._seen(output) if self._point == "gate_up" else None
            return output if changed is None else changed

        return gated

    def _seen(self, output: torch.Tensor) -> torch.Tensor | None:
        route = self._route
        if output.dim() == 2:
            if len(output) != len(route.token):
                raise _unknown(
                    self._experts, f"computes {len(output)} rows, not {len(route.token)}"
                )
            return self._see(Rows(output, route.token, route.expert))
        index = (route.expert, route.given)
        changed = self._see(Rows(output[index], route.token, route.expert))
        return None if changed is None else output.index_put(index, changed)

    def _check(self, made: torch.Tensor) -> None:
        """Compute a few rows again, once: rows of other tokens would be taken silently."""
        wide = self._experts.wide
        if self._is_checked or not len(made) or wide.element_size() < 2:
            return
        self._is_checked = True
        route = self._route
        rows = torch.tensor([0, len(made) // 2, len(made) - 1], device=made.device)
        expert = route.expert[rows]
        weights = wide[expert].float()
        weights = weights if self._experts.is_transposed else weights.transpose(1, 2)
        expected = torch.einsum("rh,rhn->rn", route.hidden[route.given[rows]].float(), weights)
        name = "gate_up_proj_bias" if self._experts.has_gate else "up_proj_bias"
        if (bias := getattr(self._experts.module, name, None)) is not None:
            expected = expected + bias[expert].float()
        # The coarsest format, bfloat16, has 8 bits.
        allowed = 0.03 * expected.abs().max()
        if bool(((made[rows].float() - expected).abs() > allowed).any()):
            raise _unknown(self._experts, "computes its rows in an order that is not known")


def _tokens_of_layer(
    experts: Experts, current: Pass, hidden: torch.Tensor, given: torch.Tensor
) -> torch.Tensor:
    """Return the flat index in [samples, tokens] of the layer of rows `given` of `hidden`."""
    n_given, n_tokens = hidden.shape[-2], current.n_samples * current.n_tokens
    if n_given == n_tokens:
        return given
    # Some layers give each group of experts the tokens of one kind only, as Ernie 4.5 VL does.
    if current.inputs is not None and hidden.dim() == 2:
        whole = current.inputs.flatten(0, -2)
        for mark in current.marks:
            for chosen in (mark.bool(), ~mark.bool()):
                place = chosen.flatten().nonzero()[:, 0].to(given.device)
                if len(place) == n_given and torch.equal(whole[place], hidden):
                    return place[given]
    raise _unknown(experts, f"is given {n_given} of {n_tokens} tokens")


@contextmanager
def _replaced(module: Any, name: str, around: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block, a method of one module is `around(method)`."""
    earlier = vars(module).get(name)
    setattr(module, name, around(getattr(module, name)))
    try:
        yield
    finally:
        if earlier is None:
            delattr(module, name)
        else:
            setattr(module, name, earlier)


@contextmanager
def _sorted(config: Any) -> Iterator[None]:
    """Within the block, the experts compute their rows sorted by expert."""
    earlier = config._experts_implementation_internal
    config._experts_implementation_internal = _SORTED
    try:
        yield
    finally:
        config._experts_implementation_internal = earlier


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _unknown(experts: Experts, what: str) -> SubjectError:
    return SubjectError(
        f"capture.hook_point: {type(experts.module).__name__} {what}, so the neurons of its "
        "experts cannot be read; choose other layers in capture.layers, or read the output of a "
        "module with capture.hook_point=module:PATH"
    )
