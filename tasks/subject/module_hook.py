"""Read and change what a module of a decoder layer reads or returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch

from neuron_atlas.tasks.subject.ffn import Ffn

See = Callable[[torch.Tensor], torch.Tensor | None]

Point = Literal["gate", "gate_up", "up"]
"""What is read of an FFN: act_fn(gate), gate times up, or up."""


@contextmanager
def hooking_module(block: Any, part: Any, see: See, reads_input: bool = False) -> Iterator[None]:
    """Within the block, call `see(activations [batch, tokens, neurons])` in every forward pass of a
    module of the decoder layer `block`. A tensor that it returns takes their place.

    reads_input: read what the module reads, and not what it returns.
    """
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
        return seen_output(output, seen)

    with ExitStack() as hooks:
        hooks.callback(block.register_forward_pre_hook(note_batch, with_kwargs=True).remove)
        if reads_input:
            hooks.callback(part.register_forward_pre_hook(before).remove)
        else:
            hooks.callback(part.register_forward_hook(after).remove)
        yield


@contextmanager
def hooking_ffn(block: Any, ffn: Ffn, point: Point, see: See) -> Iterator[None]:
    """Within the block, call `see(activations [batch, tokens, neurons])` in every forward pass of
    an FFN of the decoder layer `block`. A tensor that it returns takes their place; `up` is only
    read, and is 1 without a gate."""

    def see_up(values: torch.Tensor) -> None:
        see(values[..., -ffn.neurons :] if ffn.up is not None else torch.ones_like(values))

    if point == "gate_up":
        hooked = hooking_module(block, ffn.down, see, reads_input=True)
    elif point == "up":
        hooked = hooking_module(block, ffn.act if ffn.up is None else ffn.up, see_up)
    else:
        hooked = hooking_module(block, ffn.act, see)
    with hooked:
        yield


def seen_output(output: Any, see: See) -> Any:
    """Return a module's output, a tensor or a tuple that begins with one, with this tensor replaced
    by what `see` returns for it; None, which changes nothing, if `see` returns None."""
    if not isinstance(output, tuple):
        return see(output)
    changed = see(output[0])
    return None if changed is None else (changed, *output[1:])
