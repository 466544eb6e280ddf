"""Give a loaded subject the SAEs of some layers, and hook their latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch

from neuron_atlas.tasks.subject.ffn import find_ffn
from neuron_atlas.tasks.subject.module_hook import See, seen_output
from neuron_atlas.tasks.subject.sae.config import SaeConfig
from neuron_atlas.tasks.subject.sae.find import find_saes
from neuron_atlas.tasks.subject.sae.sae import Sae, load_sae
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents
from neuron_atlas.tasks.subject.settings import SubjectError
from neuron_atlas.tasks.subject.subject import Subject

NORMS_AFTER_FFN = ("post_feedforward_layernorm", "post_mlp_layernorm")
"""Names of the norm that some layers apply to the output of their FFN."""


def with_saes(subject: Subject, path: str, layers: Sequence[int] | None = None) -> Subject:
    """Return the subject with the SAEs in a folder. layers: None for all that there are.

    Each SAE is on the device of its layer. Raises SubjectError if one is not of this subject.
    """
    blocks = subject.decoder.layers
    width = int(subject.model.config.get_text_config().hidden_size)
    saes = {}
    for layer, config in find_saes(path, layers).items():
        if layer >= len(blocks):
            raise SubjectError(
                f"capture.sae.path: {str(config.config)!r} is an SAE of layer {layer}; "
                f"{subject.settings.model!r} has layers 0 to {len(blocks) - 1}; "
                "name an SAE of this subject"
            )
        _module(blocks[layer], config)
        device = next(iter(blocks[layer].parameters())).device
        saes[layer] = load_sae(config, device, width)
    return replace(subject, saes=saes)


def sae_of(subject: Subject, layer: int) -> Sae:
    """Return the SAE of a layer. Raises SubjectError."""
    if layer not in subject.saes:
        known = ", ".join(map(str, subject.saes)) or "none"
        raise SubjectError(
            f"capture.sae.path: there is no SAE of layer {layer}; there are SAEs of the layers "
            f"{known}; choose these in capture.layers"
        )
    found = subject.saes[layer]
    assert isinstance(found, Sae)
    return found


@contextmanager
def hooking_latents(subject: Subject, layer: int, see: See) -> Iterator[None]:
    """Within the block, call `see(latents [batch, tokens, latents])` in every forward pass.

    The latents are in the subject's number format. If `see` returns latents, the difference, times
    the decoder, is added to what the SAE reads. The latents are leaves: a gradient reaches them
    along their decoder rows only.
    """
    sae = sae_of(subject, layer)
    dtype = subject.model.dtype

    def changed(values: torch.Tensor) -> torch.Tensor | None:
        latents = sae.encode(values.detach()).to(dtype)
        seen = see(latents)
        if seen is None:
            return None
        if seen is latents:  # Changed in place.
            latents = sae.encode(values.detach()).to(dtype)
        return values + sae.written(seen - latents, values)

    with _hooking(subject, layer, changed):
        yield


@contextmanager
def reading_active(
    subject: Subject, layer: int, observe: Callable[[SparseLatents], None]
) -> Iterator[None]:
    """Within the block, call `observe` with the latents of a top-k SAE in every forward pass, in
    the subject's number format. They are never held as [batch, tokens, latents]."""
    sae = sae_of(subject, layer)

    def seen(values: torch.Tensor) -> None:
        latents = sae.encode_sparse(values.detach())
        observe(replace(latents, values=latents.values.to(subject.model.dtype)))

    with _hooking(subject, layer, seen):
        yield


@contextmanager
def _hooking(subject: Subject, layer: int, changed: See) -> Iterator[None]:
    """Within the block, call `changed` with what the SAE of a layer reads, in every forward pass. A
    tensor that it returns takes its place."""
    sae = sae_of(subject, layer)
    block = subject.decoder.layers[layer]

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            new = changed(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = changed(kwargs["hidden_states"])
        return None if new is None else (args, kwargs | {"hidden_states": new})

    def after(_module: Any, _inputs: Any, output: Any) -> Any:
        return seen_output(output, changed)

    with ExitStack() as hooks:
        if sae.config.place == "input":
            hook = block.register_forward_pre_hook(before, with_kwargs=True)
        else:
            hook = _module(block, sae.config).register_forward_hook(after)
        hooks.callback(hook.remove)
        yield


def _module(block: Any, config: SaeConfig) -> Any:
    """Return the module whose output, or input, an SAE reads. Raises SubjectError."""
    if config.place in ("input", "output"):
        return block
    if config.place == "ffn":
        norms = [part for name, part in block.named_children() if name in NORMS_AFTER_FFN]
        if norms:
            return norms[-1]
    ffn = find_ffn(block)
    owners = [
        part
        for part in block.modules()
        if ffn is not None and any(child is ffn.down for child in part.children())
    ]
    if not owners or owners[0] is block:
        raise SubjectError(
            f"capture.sae.path: {str(config.config)!r} reads the FFN's output of layer "
            f"{config.layer}, and this layer of the subject has no FFN that is recognized; name an "
            "SAE of the residual stream"
        )
    return owners[0]
