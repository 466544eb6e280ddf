"""Add a LoRA adapter to a subject's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from neuron_atlas.tasks.models.pretrained import first_lines
from neuron_atlas.tasks.subject.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, base_model
from neuron_atlas.tasks.subject.settings import SubjectError


def check_adapter(name: str, config: Any, folder: Path) -> None:
    """Raise SubjectError if the adapter in `folder` does not fit a model with this configuration.

    The model is built without memory for its weights. name: of the model, for messages.
    """
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    _with_adapter(name, model, folder)


def add_adapter(name: str, model: Any, folder: Path) -> Any:
    """Return the model with the LoRA adapter in `folder`. Raises SubjectError if it does not fit.

    The adapter is merged into the weights, unless they are quantized. name: of the model, for
    messages.
    """
    adapted = _with_adapter(name, model, folder)
    if getattr(model, "is_quantized", False):
        return adapted.get_base_model()
    return adapted.merge_and_unload(safe_merge=True)


def _with_adapter(name: str, model: Any, folder: Path) -> Any:
    from peft import LoraConfig, PeftModel, set_peft_model_state_dict
    from safetensors.torch import load_file

    is_empty = next(model.parameters()).device.type == "meta"
    try:
        config = LoraConfig.from_pretrained(str(folder))
        config.inference_mode = True
        adapted = PeftModel(model, config, low_cpu_mem_usage=is_empty)
        weights = load_file(folder / ADAPTER_WEIGHTS)
        loaded = set_peft_model_state_dict(adapted, weights, low_cpu_mem_usage=is_empty)
    except Exception as error:
        reason = _shapes(error) or first_lines(error)
        raise _misfit(name, folder, reason) from error
    missing = [key for key in loaded.missing_keys if "lora_" in key]
    if missing:
        raise _misfit(name, folder, f"{ADAPTER_WEIGHTS} lacks {min(missing)!r}")
    if loaded.unexpected_keys:
        key = min(loaded.unexpected_keys)
        raise _misfit(name, folder, f"the model has no place for {key!r} of {ADAPTER_WEIGHTS}")
    return adapted


def _shapes(error: Exception) -> str:
    """Return the line of an error that names a weight of another shape, or ""."""
    lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
    return lines[0].rstrip(".") if lines else ""


def _misfit(name: str, folder: Path, reason: str) -> SubjectError:
    return SubjectError(
        f"subject.adapter: the adapter in {str(folder)!r} does not fit subject.model {name!r}: "
        f"{reason}; set subject.model to its base model (base_model_name_or_path in "
        f"{ADAPTER_CONFIG}: {base_model(folder)!r}), or name another adapter"
    )
