"""A sparse autoencoder (SAE): latents of activations, and what latents add to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from safetensors import SafetensorError, safe_open

from neuron_atlas.tasks.subject.sae.config import SaeConfig, refuse
from neuron_atlas.tasks.subject.sae.sparse import SparseLatents
from neuron_atlas.tasks.subject.settings import SubjectError

_LAYER_NORM_EPSILON = 1e-5
BLOCK_LATENTS = 2**24
"""Latents of some tokens that a top-k SAE holds together before it selects among them."""


@dataclass(frozen=True)
class Sae:
    """One SAE on the device of its layer.

    encoder: [width, latents]. encoder_bias, decoder_bias: [latents], [width]. threshold: of
    jumprelu [latents]. gate_bias, magnitude: of gated [latents]; then encoder_bias is that of the
    magnitudes. The decoder is read when it is first needed.
    """

    config: SaeConfig
    encoder: torch.Tensor
    encoder_bias: torch.Tensor
    decoder_bias: torch.Tensor
    threshold: torch.Tensor | None = None
    gate_bias: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None

    @property
    def latents(self) -> int:
        """Number of latents."""
        return int(self.encoder.shape[1])

    @property
    def is_sparse(self) -> bool:
        """Whether at most `config.k` latents are active at each token."""
        return self.config.architecture in ("topk", "groupmax")

    @cached_property
    def decoder(self) -> torch.Tensor:
        """What one unit of each latent adds to the normalized activations: [latents, width]."""
        name = "w_dec" if self.config.format == "Gemma Scope 2" else "W_dec"
        shape = (self.latents, self.encoder.shape[0])
        weight = _read(self.config, self.encoder.device, {name: shape})[name].to(self.encoder.dtype)
        if self.config.scales_by_decoder:
            weight = weight / weight.norm(dim=-1, keepdim=True)
        return weight

    @cached_property
    def _scale(self) -> torch.Tensor | None:
        """Length of each decoder row, float [latents], of an SAE that multiplies by it."""
        if not self.config.scales_by_decoder:
            return None
        shape = (self.latents, self.encoder.shape[0])
        weight = _read(self.config, self.encoder.device, {"W_dec": shape})["W_dec"]
        return weight.to(self.encoder.dtype).norm(dim=-1)

    def encode(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the latents [..., latents] of activations [..., width], in the SAE's format."""
        if not self.is_sparse:
            return self._rectified(activations)
        values, indices = self._selected(activations.flatten(0, -2))
        latents = values.new_zeros(len(values), self.latents).scatter_(1, indices, values)
        return latents.unflatten(0, activations.shape[:-1])

    def encode_sparse(self, activations: torch.Tensor) -> SparseLatents:
        """Return the latents of activations [batch, tokens, width] of an SAE that is sparse.

        All latents are held at some tokens at a time only; see BLOCK_LATENTS.
        """
        selected = self._selected(activations.flatten(0, 1))
        values, indices = (one.unflatten(0, activations.shape[:2]) for one in selected)
        return SparseLatents(values, indices, self.latents)

    def _selected(self, activations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the selected latents of activations [tokens, width], and which they are: [tokens,
        k]."""
        parts = []
        for block in activations.split(max(1, BLOCK_LATENTS // self.latents)):
            values = self._rectified(block)
            if self.config.architecture == "topk":
                k = min(self.config.k, self.latents)
                parts.append(tuple(values.topk(k, dim=-1, sorted=False)))
            else:
                highest, place = values.unflatten(-1, (self.config.k, -1)).max(-1)
                first = torch.arange(self.config.k, device=values.device)
                parts.append((highest, place + first * (self.latents // self.config.k)))
        values, indices = (torch.cat(one) for one in zip(*parts, strict=True))
        return values, indices

    def _rectified(self, activations: torch.Tensor) -> torch.Tensor:
        """Return the latents before a selection among them."""
        inputs = self._normalized(activations.to(self.encoder.dtype))
        if self.config.subtracts_bias:
            inputs = inputs - self.decoder_bias
        product = inputs @ self.encoder
        if self.gate_bias is not None and self.magnitude is not None:
            values = (product * self.magnitude.exp() + self.encoder_bias).relu_()
            return values * (product + self.gate_bias > 0)
        values = product.add_(self.encoder_bias)
        if self._scale is not None:
            values = values * self._scale
        if self.threshold is not None:
            return values.relu() * (values > self.threshold)
        return values.relu_()

    def written(self, change: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
        """Return what a change of the latents [..., latents] adds to the activations [..., width]
        that they are of, in the format of the activations."""
        added = change.to(self.decoder.dtype) @ self.decoder
        if self.config.norm != "none":
            values = activations.detach().to(added.dtype)
            if self.config.norm == "layer_norm":
                added = added * values.std(dim=-1, keepdim=True)
            else:
                added = added * values.norm(dim=-1, keepdim=True) / values.shape[-1] ** 0.5
        return added.to(activations.dtype)

    def _normalized(self, values: torch.Tensor) -> torch.Tensor:
        if self.config.norm == "layer_norm":
            values = values - values.mean(dim=-1, keepdim=True)
            return values / (values.std(dim=-1, keepdim=True) + _LAYER_NORM_EPSILON)
        if self.config.norm == "constant_norm_rescale":
            return values * (values.shape[-1] ** 0.5 / values.norm(dim=-1, keepdim=True))
        return values


def load_sae(config: SaeConfig, device: torch.device, width: int) -> Sae:
    """Load the encoder of an SAE that reads activations of a width. Raises SubjectError."""
    if config.width not in (None, width):
        raise refuse(
            config.config,
            "d_in",
            config.width,
            f"the subject's residual stream has the width {width}; name an SAE of this subject",
        )
    names = _NAMES["Gemma Scope 2" if config.format == "Gemma Scope 2" else config.format]
    is_transposed = config.format == "sparsify"
    encoder = names[0]
    wanted: dict[str, tuple[int | None, ...]] = {
        encoder: (None, width) if is_transposed else (width, None),
        names[2]: (width,),
    }
    per_latent = {
        "gated": ("b_mag", "b_gate", "r_mag"),
        "jumprelu": (names[1], "threshold"),
    }.get(config.architecture, (names[1],))
    read = _read(config, device, wanted | dict.fromkeys(per_latent, (None,)))
    _check_scaling_factor(config)
    matrix = read[encoder].T if is_transposed else read[encoder]
    dtype = _dtype(config, matrix)
    latents = matrix.shape[1]
    for name in per_latent:
        if read[name].shape != (latents,):
            raise refuse(
                config.weights, name, tuple(read[name].shape), f"{encoder} has {latents} latents"
            )
    if config.architecture == "groupmax" and latents % config.k:
        raise refuse(config.config, "k", config.k, f"it does not divide {latents} latents")

    def part(name: str) -> torch.Tensor:
        return read[name].to(dtype)

    is_gated = config.architecture == "gated"
    return Sae(
        config,
        matrix.to(dtype).contiguous(),
        part(per_latent[0]),
        part(names[2]),
        threshold=part("threshold") if config.architecture == "jumprelu" else None,
        gate_bias=part("b_gate") if is_gated else None,
        magnitude=part("r_mag") if is_gated else None,
    )


_NAMES = {
    "SAELens": ("W_enc", "b_enc", "b_dec"),
    "sparsify": ("encoder.weight", "encoder.bias", "b_dec"),
    "Gemma Scope 2": ("w_enc", "b_enc", "b_dec"),
}
"""Names of the encoder, its bias and the decoder's bias."""


def _read(
    config: SaeConfig, device: torch.device, wanted: dict[str, tuple[int | None, ...]]
) -> dict[str, torch.Tensor]:
    """Read tensors by name. wanted: their shapes, None for any size. Raises SubjectError."""
    try:
        with safe_open(config.weights, framework="pt", device=str(device)) as file:
            names = set(file.keys())
            read = {name: file.get_tensor(name) for name in wanted if name in names}
    except (OSError, SafetensorError) as error:
        raise SubjectError(
            f"capture.sae.path: {str(config.weights)!r} is damaged ({error}); download it again"
        ) from error
    for name, shape in wanted.items():
        if name not in read:
            raise SubjectError(
                f"capture.sae.path: {str(config.weights)!r} has no tensor {name!r}, which a "
                f"{config.architecture} SAE of {config.format} needs; it has "
                f"{', '.join(sorted(names))}"
            )
        found = tuple(read[name].shape)
        is_same = len(found) == len(shape) and all(
            size in (None, actual) for size, actual in zip(shape, found, strict=True)
        )
        if not is_same:
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise refuse(config.weights, f"the shape of {name}", found, f"expected ({expected})")
    return read


def _check_scaling_factor(config: SaeConfig) -> None:
    """Raise SubjectError if the weights hold a factor that is not 1."""
    with safe_open(config.weights, framework="pt") as file:
        for name in {"scaling_factor", "finetuning_scaling_factor"} & set(file.keys()):
            if not torch.all(file.get_tensor(name) == 1):
                raise refuse(config.weights, name, "not 1", "fold it into the weights")


def _dtype(config: SaeConfig, encoder: torch.Tensor) -> torch.dtype:
    named = None if config.dtype is None else getattr(torch, config.dtype, None)
    return named if isinstance(named, torch.dtype) else encoder.dtype
