"""Saves small quantized checkpoints: of each format, the language model of a small LLaVA."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
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
    packed = sum(codes[:, one::8] << (4 * one) for one in range(8))
    yield f"{name}_packed", packed.to(torch.int32)  # type: ignore[union-attr]
    yield f"{name}_scale", scale[..., 0].contiguous()
    yield f"{name}_shape", torch.tensor(weight.shape)


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
