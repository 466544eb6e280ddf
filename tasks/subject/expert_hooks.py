"""Read and change the activations of a layer with experts, and always remove the hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from neuron_atlas.tasks.subject.mixture import Mixture
from neuron_atlas.tasks.subject.module_hook import Point, See, hooking_ffn
from neuron_atlas.tasks.subject.routing import Pass, Rows, SeeRows, hooking_rows

ObserveExpert = Callable[[int, torch.Tensor, torch.Tensor | None], None]
"""Called with an expert, its activations [tokens, neurons], and the flat indices in [batch, tokens]
of these tokens, ascending; for the shared expert with [batch, tokens, neurons] and None."""


@contextmanager
def hooking_mixture(block: Any, mixture: Mixture, point: Point, see: See) -> Iterator[None]:
    """Within the block, call `see(activations [batch, tokens, neurons of the layer])` once for each
    part of the mixture in every forward pass: each group of routed experts, and the shared expert.
    A tensor that it returns takes the place of the part's own activations.

    Activations are 0 for the other parts, and where a token was not routed to an expert.
    """
    current = Pass()
    total = mixture.layout.neurons

    def see_part(start: int, dense: torch.Tensor) -> torch.Tensor | None:
        width = dense.shape[-1]
        changed = see(torch.nn.functional.pad(dense, (start, total - start - width)))
        return None if changed is None else changed[..., start : start + width]

    def see_rows(start: int, experts: int, rows: Rows) -> torch.Tensor | None:
        tokens = current.n_samples * current.n_tokens
        dense = rows.dense(tokens, experts).unflatten(0, (current.n_samples, -1))
        changed = see_part(start, dense)
        return None if changed is None else rows.read(changed.flatten(0, 1), experts)

    start, rows = 0, []
    for one in mixture.routed:
        rows.append(partial(see_rows, start, one.experts))
        start += one.experts * one.neurons
    with _hooking_parts(block, mixture, point, current, rows, partial(see_part, start)):
        yield


@contextmanager
def observing_mixture(
    block: Any,
    mixture: Mixture,
    point: Point,
    observe: Callable[[torch.Tensor], None],
    absent: float = 0.0,
) -> Iterator[None]:
    """Within the block, call `observe(activations [batch, tokens, neurons of the layer])` at the
    end of the layer in every forward pass.

    absent: stands where a token was not routed to an expert.
    """
    current = Pass()
    parts: dict[int, torch.Tensor] = {}

    def see_rows(number: int, experts: int, rows: Rows) -> None:
        tokens = current.n_samples * current.n_tokens
        parts[number] = rows.dense(tokens, experts, absent)

    def see_shared(dense: torch.Tensor) -> None:
        parts[len(mixture.routed)] = dense.flatten(0, 1)

    def end(_module: Any, _args: Any, _output: Any) -> None:
        some = next(iter(parts.values()))
        for number, one in enumerate(mixture.routed):
            # The experts of images do not run for a text alone.
            if number not in parts:
                parts[number] = some.new_full((len(some), one.experts * one.neurons), absent)
        whole = torch.cat([parts[number] for number in sorted(parts)], 1)
        parts.clear()
        observe(whole.unflatten(0, (current.n_samples, -1)))

    rows = [partial(see_rows, number, one.experts) for number, one in enumerate(mixture.routed)]
    with ExitStack() as hooks:
        hooks.enter_context(_hooking_parts(block, mixture, point, current, rows, see_shared))
        hooks.callback(block.register_forward_hook(end).remove)
        yield


@contextmanager
def observing_experts(
    block: Any, mixture: Mixture, point: Point, observe: ObserveExpert
) -> Iterator[None]:
    """Within the block, call `observe` in every forward pass for each expert that has tokens."""

    def see_rows(first: int, experts: int, rows: Rows) -> None:
        for expert, values, tokens in rows.by_expert(experts):
            observe(first + expert, values, tokens)

    def see_shared(values: torch.Tensor) -> None:
        observe(mixture.layout.experts, values, None)

    first, rows = 0, []
    for one in mixture.routed:
        rows.append(partial(see_rows, first, one.experts))
        first += one.experts
    with _hooking_parts(block, mixture, point, Pass(), rows, see_shared):
        yield


@contextmanager
def _hooking_parts(
    block: Any,
    mixture: Mixture,
    point: Point,
    current: Pass,
    see_rows: Sequence[SeeRows],
    see_shared: See,
) -> Iterator[None]:
    with ExitStack() as hooks:
        hooks.callback(block.register_forward_pre_hook(current.start, with_kwargs=True).remove)
        for part in block.children():
            if any(one.module in part.modules() for one in mixture.routed):
                before = part.register_forward_pre_hook(current.enter, with_kwargs=True)
                hooks.callback(before.remove)
        for one, see in zip(mixture.routed, see_rows, strict=True):
            hooks.enter_context(hooking_rows(one, point, current, see))
        shared = mixture.shared
        if shared is not None:
            hooks.enter_context(hooking_ffn(block, shared, point, see_shared))
        yield
