"""Name how a checkpoint is quantized, and the package that reads it. Importable without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings, model_folder

_PACKAGES = {
    "aqlm": "aqlm",
    "auto-round": "auto_round",
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed_tensors",
    "eetq": "kernels",
    "fbgemm_fp8": "fbgemm_gpu",
    "fp_quant": "fp_quant",
    "gptq": "gptqmodel",
    "hqq": "hqq",
    "quanto": "optimum.quanto",
    "quark": "quark",
    "spqr": "spqr_quant",
    "torchao": "torchao",
    "vptq": "vptq",
}
"""The package that reads each method's weights, as it is imported."""
_PIP = {
    "compressed_tensors": "compressed-tensors",
    "auto_round": "auto-round",
    "fbgemm_gpu": "fbgemm-gpu",
    "optimum.quanto": "optimum-quanto",
    "gptqmodel": "gptqmodel optimum",
    "quark": "amd-quark",
    "spqr_quant": "spqr_quant[gpu]",
}
_FIXED_BITS = {"eetq": 8, "fbgemm_fp8": 8, "fp8": 8, "mxfp4": 4, "mxfp8": 8, "nvfp4": 4}
_BITS_FIELDS = ("bits", "w_bit", "nbits", "num_bits", "weight_bits")


def quantization_name(config: Mapping[str, Any]) -> str | None:
    """Return the method and the bits of a quantized model's weights, such as "gptq, 4 bits"; None
    if its configuration has no quantization_config."""
    settings = quantization_settings(config)
    if settings is None:
        return None
    method = _method(settings)
    bits = sorted(set(_bits(method, settings)))
    return f"{method}, {' and '.join(map(str, bits))} bits" if bits else method


def quantization_settings(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the quantization_config of a configuration, or of its language model, or None."""
    text = config.get("text_config")
    for one in (config, text if isinstance(text, Mapping) else {}):
        if isinstance(found := one.get("quantization_config"), Mapping):
            return found
    return None


def check_quantization(name: str, config: Mapping[str, Any]) -> None:
    """Raise SubjectError if the package that reads a quantized model is missing. name: of the
    model, for messages."""
    settings = quantization_settings(config)
    package = None if settings is None else _PACKAGES.get(_method(settings))
    if package is None or _is_installed(package):
        return
    raise SubjectError(
        f"subject.model: {name!r} is quantized ({quantization_name(config)}), and the package that "
        f"reads it is not installed; pip install {_PIP.get(package, package)}"
    )


def subject_quantization(settings: SubjectSettings) -> str | None:
    """Return `quantization_name` of a subject, or None. Raises SubjectError."""
    folder = model_folder(settings)
    path = _downloaded(settings) if folder is None else folder / "config.json"
    if path is None:
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # check_config names the fault.
        return None
    return quantization_name(config) if isinstance(config, Mapping) else None


def _method(settings: Mapping[str, Any]) -> str:
    named = settings.get("quant_method")
    if named is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        return "bitsandbytes"
    return str(named)


def _bits(method: str, settings: Mapping[str, Any]) -> Iterator[int]:
    if method == "bitsandbytes":
        yield 4 if settings.get("load_in_4bit") else 8
    elif method in _FIXED_BITS:
        yield _FIXED_BITS[method]
    elif method == "torchao":
        yield from _named_bits(json.dumps(settings.get("quant_type")))
    elif method == "quanto":
        yield from _named_bits(str(settings.get("weights")))
    elif method == "compressed-tensors":
        groups = settings.get("config_groups") or {}
        yield from (found for one in groups.values() for found in _stated(one.get("weights") or {}))
    else:
        yield from _stated(settings)


def _named_bits(text: str) -> Iterator[int]:
    """Yield the bits in the name of a number format, such as Int4WeightOnlyConfig."""
    found = re.search(r"(?:u?int|float|fp)_?(\d+)", text, re.IGNORECASE)
    if found:
        yield int(found[1])


def _stated(settings: Mapping[str, Any]) -> Iterator[int]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _stated(value)
        elif name in _BITS_FIELDS and isinstance(value, int):
            yield value


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # Of the package that holds it.
        return False


def _downloaded(settings: SubjectSettings) -> Path | None:
    """Return the config.json of a Hugging Face model, or None if it cannot be downloaded."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(settings.model, "config.json", revision=settings.revision))
    except Exception:  # Loading the model raises the reason.
        return None
