"""Saves small quantized checkpoints: of each format, the language model of a small LLaVA."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from tests.families.building import build
from tests.families.instances import BUILDS, llava

_NOT_CONVERTED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
_BLOCK = 64


def build_wide(folder: Path) -> Path:
    """Save a small LLaVA whose layers are wide enough for blocks of 64 weights."""
    wide = replace(BUILDS["llava"], model=lambda ids, words: llava(ids, words, 128, 256))
    return build(wide, folder)


def save_fp8(source: Path, folder: Path) -> Path:
    """Save `source` in FP8 with a scale per block of 64 x 64 weights, as DeepSeek's models."""
    return _save_by_hand(source, folder, _fp8, _FP8_CONFIG)


_FP8_CONFIG = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [_BLOCK, _BLOCK],
    "modules_to_not_convert": _NOT_CONVERTED,
}


def _fp8(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    rows, columns = (size // _BLOCK for size in weight.shape)
    blocks = weight.view(rows, _BLOCK, columns, _BLOCK)
    scale = blocks.abs().amax((1, 3)) / 448
    scaled = (blocks / scale[:, None, :, None]).view_as(weight)
    yield name, scaled.to(torch.float8_e4m3fn)
    yield f"{name}_scale_inv", scale


def save_int4(source: Path, folder: Path) -> Path:
    """Save `source` as compressed-tensors: 4 bits, a scale per 64 weights, packed in int32."""
    return _save_by_hand(source, folder, _int4, _INT4_CONFIG)


_INT4_CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["re:.*language_model.*_proj"],
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": _BLOCK,
            },
        }
    },
    "ignore": [],
}


def _int4(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    groups = weight.unflatten(1, (-1, _BLOCK))
    scale = groups.abs().amax(-1, keepdim=True) / 7
    codes = (groups / scale).round().flatten(1).to(torch.int32) + 8
    yield f"{name}_packed", _packed(codes, range(8))
    yield f"{name}_scale", scale[..., 0].contiguous()
    yield f"{name}_shape", torch.tensor(weight.shape)


def save_gptq(source: Path, folder: Path) -> Path:
    """Save `source` as GPTQ: 4 bits, a scale per 64 inputs, packed along the inputs."""
    return _save_by_hand(source, folder, _gptq, _GPTQ_CONFIG)


_GPTQ_CONFIG = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": _BLOCK,
    "desc_act": False,
    "sym": True,
    "checkpoint_format": "gptq",
    "block_name_to_quantize": "model.language_model.layers",
}


def _gptq(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    codes, scale = _by_input(weight)
    groups, outputs = scale.shape
    stem = name.removesuffix(".weight")
    yield f"{stem}.qweight", _packed(codes.T, range(8)).T.contiguous()
    # The format stores the zero point minus 1.
    yield f"{stem}.qzeros", _packed(torch.full((groups, outputs), 7), range(8))
    yield f"{stem}.scales", scale.half()
    yield f"{stem}.g_idx", (torch.arange(len(codes)) // _BLOCK).to(torch.int32)


def save_awq(source: Path, folder: Path) -> Path:
    """Save `source` as AWQ: 4 bits, a scale per 64 inputs, packed along the outputs."""
    return _save_by_hand(source, folder, _awq, _AWQ_CONFIG)


_AWQ_CONFIG = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": _BLOCK,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": _NOT_CONVERTED,
}
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def _awq(name: str, weight: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    codes, scale = _by_input(weight)
    stem = name.removesuffix(".weight")
    yield f"{stem}.qweight", _packed(codes, _AWQ_ORDER)
    yield f"{stem}.qzeros", _packed(torch.full(scale.shape, 8), _AWQ_ORDER)
    yield f"{stem}.scales", scale.half()


def _by_input(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes from 0 to 15, 8 for zero [inputs, outputs], and scales [groups, outputs]."""
    groups = weight.T.unflatten(0, (-1, _BLOCK))
    scale = groups.abs().amax(1, keepdim=True) / 7
    return (groups / scale).round().flatten(0, 1).to(torch.int32) + 8, scale[:, 0].contiguous()


def _packed(codes: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Pack eight neighbors of the last dimension into one int32, the first of `order` lowest."""
    packed = torch.zeros(codes.shape[0], codes.shape[1] // 8, dtype=torch.int32)
    for place, one in enumerate(order):
        packed |= codes[:, one::8].to(torch.int32) << (4 * place)
    return packed


def save_bitsandbytes(source: Path, folder: Path, bits: int) -> Path:
    """Save `source` quantized by bitsandbytes, in 4 or 8 bits."""
    config = hf.BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=_NOT_CONVERTED,
    )
    return _save(source, folder, config)


def save_torchao(source: Path, folder: Path) -> Path:
    """Save `source` quantized by torchao, in 8 bits."""
    from torchao.quantization import Int8WeightOnlyConfig

    config = hf.TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=_NOT_CONVERTED)
    return _save(source, folder, config)


def _save(source: Path, folder: Path, config: Any) -> Path:
    shutil.copytree(source, folder)
    model = hf.AutoModelForImageTextToText.from_pretrained(
        source, quantization_config=config, device_map={"": "cpu"}
    )
    model.save_pretrained(folder)
    return folder


def _save_by_hand(source: Path, folder: Path, convert: Any, config: dict[str, Any]) -> Path:
    shutil.copytree(source, folder)
    stored = load_file(source / "model.safetensors")
    made: dict[str, torch.Tensor] = {}
    for name, weight in stored.items():
        is_converted = "language_model" in name and name.endswith("_proj.weight")
        made |= dict(convert(name, weight)) if is_converted else {name: weight}
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}))
    return folder
