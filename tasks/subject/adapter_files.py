"""Find and check the files of a LoRA adapter. Importable without torch and peft."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from neuron_atlas.tasks.models.pretrained import ModelError, first_line, saved_folder
from neuron_atlas.tasks.subject.json_file import read_json_file
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def adapter_folder(settings: SubjectSettings) -> Path | None:
    """Return the folder with the files of settings.adapter, or None if it is not set.

    Downloads the two files if it is a Hugging Face id. Raises SubjectError, with file and field,
    unless it is a LoRA adapter with weights in safetensors.
    """
    if settings.adapter is None:
        return None
    try:
        folder = saved_folder(settings.adapter, "subject.adapter")
    except ModelError as error:
        raise SubjectError(str(error)) from error
    folder = folder or _downloaded(settings.adapter)
    config = _read_config(folder)
    if config.get("peft_type") != "LORA":
        raise SubjectError(
            f"subject.adapter: {ADAPTER_CONFIG} of {settings.adapter!r} has peft_type "
            f"{config.get('peft_type')!r}; name an adapter of the type 'LORA'"
        )
    _check_weights(folder)
    return folder


def adapter_digest(settings: SubjectSettings) -> str | None:
    """Return the hash of an adapter's configuration and weights, or None. Raises SubjectError."""
    folder = adapter_folder(settings)
    if folder is None:
        return None
    digest = hashlib.sha256()
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        with (folder / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def base_model(folder: Path) -> str:
    """Return the base model that an adapter names, for messages. Raises SubjectError."""
    return str(_read_config(folder).get("base_model_name_or_path"))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / ADAPTER_CONFIG
    if not path.exists():
        raise SubjectError(
            f"subject.adapter: {str(folder)!r} has no {ADAPTER_CONFIG}; name a folder that peft "
            "saved"
        )
    return read_json_file(path, "subject.adapter")


def _check_weights(folder: Path) -> None:
    from safetensors import safe_open

    path = folder / ADAPTER_WEIGHTS
    if not path.exists():
        raise SubjectError(
            f"subject.adapter: {str(folder)!r} has no weights in safetensors ({path.name}), and "
            "others are not read; save the adapter in this format"
        )
    try:
        with safe_open(path, "numpy"):
            pass
    except Exception as error:
        raise SubjectError(
            f"subject.adapter: {path} is damaged ({first_line(error)}); save or download it again"
        ) from error


def _downloaded(adapter: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(adapter, ADAPTER_CONFIG)
        hf_hub_download(adapter, ADAPTER_WEIGHTS)
    except Exception as error:
        raise SubjectError(
            f"subject.adapter: {adapter!r} is no folder, and {ADAPTER_CONFIG} and "
            f"{ADAPTER_WEIGHTS} cannot be downloaded: {first_line(error)}"
        ) from error
    return Path(path).parent
