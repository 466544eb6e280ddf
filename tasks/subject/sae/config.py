"""Read the configuration of a sparse autoencoder (SAE) from its folder, in any of its formats.
Importable without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from neuron_atlas.tasks.subject.settings import SubjectError

Place = Literal["input", "output", "ffn", "ffn_module"]
"""What an SAE reads: the residual stream before or after a decoder layer, what the layer's FFN adds
to it, or the output of the FFN's module, before a norm that the layer may apply to it."""
Norm = Literal["none", "layer_norm", "constant_norm_rescale"]

FORMATS: Mapping[str, tuple[str, str]] = {
    "SAELens": ("cfg.json", "sae_weights.safetensors"),
    "sparsify": ("cfg.json", "sae.safetensors"),
    "Gemma Scope 2": ("config.json", "params.safetensors"),
}
"""Files of each format: the configuration and the weights. multimodal-sae writes sparsify's."""

ARCHITECTURES = ("standard", "jumprelu", "topk", "groupmax", "gated")
_OF_SAELENS = {"standard", "jumprelu", "topk", "gated"}
_NORMS = ("none", "layer_norm", "constant_norm_rescale")
_TRANSFORMER_LENS = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post|mlp_out)")
_MODULE = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.(\d+)(?:\.(mlp|feed_forward|ffn))?")
_GEMMA_SCOPE = re.compile(r"layer_(\d+)_.*")
_OTHER_PLACE = (
    "the residual stream before or after a layer (blocks.N.hook_resid_pre, "
    "blocks.N.hook_resid_post, layers.N) and the FFN's output (blocks.N.hook_mlp_out, layers.N.mlp)"
)


@dataclass(frozen=True)
class SaeConfig:
    """Configuration of one SAE.

    weights: its safetensors file. layer: decoder layer. k: active latents per token, of topk and
    groupmax. width: of what it reads; None if only the weights say it. subtracts_bias: the
    decoder's bias is subtracted from the input. norm: of the input. scales_by_decoder: of topk,
    activations are multiplied by the length of the decoder's row. dtype: number format in which it
    computes; None for that of the weights.
    """

    format: str
    config: Path
    weights: Path
    layer: int
    place: Place
    architecture: str
    width: int | None
    k: int = 0
    subtracts_bias: bool = True
    norm: Norm = "none"
    scales_by_decoder: bool = False
    dtype: str | None = None


def format_of(folder: Path) -> str | None:
    """Return the format of the SAE in a folder; None if it holds none."""
    for name, (config, weights) in FORMATS.items():
        if (folder / config).is_file() and (folder / weights).is_file():
            return name
    return None


def read_config(folder: Path, kind: str) -> SaeConfig:
    """Read the configuration of an SAE of a format. Raises SubjectError."""
    config, weights = (folder / name for name in FORMATS[kind])
    try:
        fields = json.loads(config.read_text("utf-8"))
        if not isinstance(fields, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError) as error:
        raise SubjectError(
            f"capture.sae.path: {str(config)!r} cannot be read ({error}); download the SAE again"
        ) from error
    if kind == "sparsify":
        return _sparsify(config, weights, fields)
    if kind == "Gemma Scope 2":
        return _gemma_scope(config, weights, fields)
    return _sae_lens(config, weights, fields)


def _sae_lens(config: Path, weights: Path, fields: dict[str, Any]) -> SaeConfig:
    metadata = fields.get("metadata")
    if isinstance(metadata, dict):
        fields = metadata | fields
    # Names that versions before 6 used.
    activation = fields.get("activation_fn_str", fields.get("activation_fn", "relu"))
    kind = fields.get("architecture") or "standard"
    options = fields.get("activation_fn_kwargs") or {}
    if activation == "topk" and kind == "standard":
        kind, fields = "topk", {"k": options.get("k")} | fields
    elif activation not in ("relu", "topk", None):
        raise refuse(config, "activation_fn", activation, "relu and topk are read")
    if kind not in _OF_SAELENS:
        raise refuse(config, "architecture", kind, f"{', '.join(sorted(_OF_SAELENS))} are read")
    norm: Any = fields.get("normalize_activations") or "none"
    if norm not in _NORMS:
        raise refuse(
            config,
            "normalize_activations",
            norm,
            "its factors are not in the files; fold them into the weights with SAELens, and save",
        )
    if fields.get("reshape_activations", "none") not in ("none", None):
        raise refuse(config, "reshape_activations", fields["reshape_activations"], "none is read")
    if fields.get("finetuning_scaling_factor"):
        raise refuse(config, "finetuning_scaling_factor", True, "fold it into the weights")
    hook = fields.get("hook_name", fields.get("hook_point")) or ""
    layer, place = _place(config, "hook_name", str(hook))
    return SaeConfig(
        "SAELens",
        config,
        weights,
        layer,
        place,
        kind,
        _whole(config, fields, "d_in"),
        k=_whole(config, fields, "k") if kind == "topk" else 0,
        subtracts_bias=bool(fields.get("apply_b_dec_to_input", True)),
        norm=norm,
        scales_by_decoder=kind == "topk" and bool(fields.get("rescale_acts_by_decoder_norm")),
        dtype=str(fields.get("dtype") or "float32").removeprefix("torch."),
    )


def _sparsify(config: Path, weights: Path, fields: dict[str, Any]) -> SaeConfig:
    for name in ("transcode", "skip_connection", "signed"):
        if fields.get(name):
            raise refuse(config, name, True, "an SAE with it is not read")
    kind = fields.get("activation", "topk")
    if kind not in ("topk", "groupmax"):
        raise refuse(config, "activation", kind, "topk and groupmax are read")
    layer, place = _place(config, "the folder's name", config.parent.name)
    width, k = (_whole(config, fields, name) for name in ("d_in", "k"))
    return SaeConfig("sparsify", config, weights, layer, place, kind, width, k=k)


def _gemma_scope(config: Path, weights: Path, fields: dict[str, Any]) -> SaeConfig:
    if fields.get("architecture") != "jump_relu":
        raise refuse(config, "architecture", fields.get("architecture"), "jump_relu is read")
    if fields.get("hf_hook_point_out"):
        raise refuse(
            config, "hf_hook_point_out", fields["hf_hook_point_out"], "a transcoder is not read"
        )
    found = _GEMMA_SCOPE.fullmatch(config.parent.name)
    hook = str(fields.get("hf_hook_point_in") or "")
    layer = re.search(r"\.layers\.(\d+)\.", hook)
    number = layer or found
    if number is None or not hook.endswith(
        ("." + number.group(1) + ".output", ".post_feedforward_layernorm.output")
    ):
        raise refuse(config, "hf_hook_point_in", hook, f"an SAE reads {_OTHER_PLACE}")
    place: Place = "ffn" if "layernorm" in hook else "output"
    return SaeConfig(
        "Gemma Scope 2",
        config,
        weights,
        int(number.group(1)),
        place,
        "jumprelu",
        None,
        subtracts_bias=False,
    )


def _place(config: Path, field: str, name: str) -> tuple[int, Place]:
    found = _TRANSFORMER_LENS.fullmatch(name)
    if found is not None:
        places: Mapping[str, Place] = {
            "resid_pre": "input",
            "resid_post": "output",
            "mlp_out": "ffn",
        }
        return int(found.group(1)), places[found.group(2)]
    found = _MODULE.fullmatch(name)
    if found is not None:
        return int(found.group(1)), "ffn_module" if found.group(2) else "output"
    raise refuse(config, field, name, f"an SAE must read {_OTHER_PLACE}")


def _whole(config: Path, fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or value < 1:
        raise refuse(config, name, value, "it must be a whole number, 1 or above")
    return value


def refuse(config: Path, field: str, value: object, remedy: str) -> SubjectError:
    """Return the error of a field of a configuration that cannot be used."""
    return SubjectError(f"capture.sae.path: {str(config)!r}: {field} is {value!r}; {remedy}")
