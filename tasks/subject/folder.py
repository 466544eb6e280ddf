"""Check the folder of a saved subject before anything is loaded. Importable without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from neuron_atlas.tasks.models.pretrained import damaged_file, first_line
from neuron_atlas.tasks.subject.adapter_files import adapter_folder
from neuron_atlas.tasks.subject.json_file import read_json_file
from neuron_atlas.tasks.subject.plain_prompt import check_prompt
from neuron_atlas.tasks.subject.quantization import check_quantization
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings, model_folder

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_INDEX = "model.safetensors.index.json"
_PROCESSOR = "processor_config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "chat_templates")


def check_subject_folder(settings: SubjectSettings) -> None:
    """Raise SubjectError, with file and field, for a folder that cannot be a subject.

    Takes well below a second, so a run can fail before it opens the first image. Of a Hugging Face
    id, only an adapter is checked.
    """
    check_prompt(settings)
    read_chat_template(settings)
    adapter_folder(settings)
    folder = model_folder(settings)
    if folder is not None:
        check_config(folder)
        check_files(folder, needs_template=needs_template(settings))


def check_config(folder: Path) -> str:
    """Return the model_type in a folder's config.json.

    Raises SubjectError if it is not that of a vision-language model, if the folder holds an
    adapter, or if the package that reads its quantized weights is missing.
    """
    for name in _ADAPTER_FILES:
        if (folder / name).exists():
            raise SubjectError(
                f"subject.model: {str(folder)!r} holds an adapter ({name}), and without it "
                "the atlas would be that of the base model. Name an adapter in subject.adapter and "
                "its base model in subject.model, or merge it into the weights (merge_and_unload "
                f"in peft) and name the merged model, or remove {name} to study the base model"
            )
    path = folder / "config.json"
    _check_no_gguf(folder)
    if not path.exists():
        _cannot_load(folder, "it has no config.json; name a folder with a saved model")
    config = _read_json(path)
    if not isinstance(config.get("model_type"), str):
        _cannot_load(folder, "config.json has no model_type, such as 'llava'")
    check_converted(str(folder), config)
    check_quantization(str(folder), config)
    if not isinstance(config.get("vision_config"), Mapping):
        raise SubjectError(
            f"subject.model: {str(folder)!r} is a {config['model_type']!r} model without a vision "
            "tower (config.json has no vision_config); neuron-atlas studies vision-language models"
        )
    # Older configurations of Qwen2.5-VL have the language model's fields at the top.
    if not isinstance(config.get("text_config"), Mapping) and "hidden_size" not in config:
        _cannot_load(folder, "config.json has no text_config")
    return str(config["model_type"])


def check_converted(name: str, config: Mapping[str, Any]) -> None:
    """Raise SubjectError for a config.json of LLaVA's original code. Its model_type may be `llava`,
    and transformers would then load random weights of another shape. name: for messages."""
    if config.get("mm_vision_tower") is None:
        return
    has_tiles = "anyres" in str(config.get("image_aspect_ratio"))
    converted = "llava-v1.6-mistral-7b" if has_tiles else "llava-1.5-7b"
    raise SubjectError(
        f"subject.model: {name!r} is a checkpoint of LLaVA's original code (config.json has "
        f"mm_vision_tower), which transformers does not load; name its conversion, such as "
        f"llava-hf/{converted}-hf"
    )


def _check_no_gguf(folder: Path) -> None:
    """Raise SubjectError if a folder's weights are in GGUF."""
    found = sorted(folder.glob("*.gguf"))
    if found and not list(folder.glob("*.safetensors")):
        raise SubjectError(
            f"subject.model: the weights of {str(folder)!r} are in GGUF ({found[0].name}), and "
            "transformers reads only language models without a vision tower from it; name the "
            "model in safetensors that it was made from, or one quantized in another format"
        )


def check_files(folder: Path, *, needs_template: bool) -> None:
    """Raise SubjectError if a folder lacks weights, a tokenizer, an image processor or a chat
    template, or if one of its files is damaged."""
    damaged = damaged_file(folder)
    if damaged is not None:
        path, reason = damaged
        raise SubjectError(
            f"subject.model: {path} is damaged ({reason}); save or download it again"
        )
    _check_weights(folder)
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        _cannot_load(folder, "it has no tokenizer (tokenizer.json); save or download it again")
    tokenizer = folder / _TOKENIZER_FILES[0]
    if tokenizer.exists() and not {"model", "added_tokens"} <= _read_json(tokenizer).keys():
        _cannot_load(folder, "tokenizer.json has no model or added_tokens; download it again")
    processor = _read_json(folder / _PROCESSOR) if (folder / _PROCESSOR).exists() else {}
    if "image_processor" not in processor and not (folder / "preprocessor_config.json").exists():
        _cannot_load(
            folder,
            "it has no image processor: neither preprocessor_config.json nor image_processor in "
            f"{_PROCESSOR}; save or download it again",
        )
    has_template = "chat_template" in processor or any(
        (folder / name).exists() for name in _TEMPLATE_FILES
    )
    if needs_template and not has_template:
        raise SubjectError(no_chat_template(str(folder)))


def needs_template(settings: SubjectSettings) -> bool:
    """Return whether the model's own chat template writes the prompt."""
    return settings.chat_template is None and settings.prompt is None


def no_chat_template(model: str) -> str:
    """Return the message for a model without a chat template."""
    return (
        f"subject.model: {model!r} has no chat template (chat_template.jinja), which writes the "
        "prompt; save or download it again, or name a template file in subject.chat_template, "
        r"or write a base model's prompt in subject.prompt, such as '{image}\n{question}'"
    )


def read_chat_template(settings: SubjectSettings) -> str | None:
    """Return the text of settings.chat_template, or None if it is not set. Raises SubjectError."""
    if settings.chat_template is None:
        return None
    try:
        return Path(settings.chat_template).expanduser().read_text("utf-8")
    except (OSError, ValueError) as error:
        raise SubjectError(
            f"subject.chat_template: {settings.chat_template!r} cannot be read "
            f"({first_line(error)}); name a file with a Jinja chat template"
        ) from error


def chat_template_digest(settings: SubjectSettings) -> str | None:
    """Return the hash of the text of settings.chat_template, or None. Raises SubjectError."""
    template = read_chat_template(settings)
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()


def _check_weights(folder: Path) -> None:
    index = folder / _INDEX
    if (folder / "model.safetensors").exists():
        return
    if not index.exists():
        parts = list(folder.glob("model-*.safetensors"))
        _cannot_load(
            folder,
            f"its weights are in parts, and {_INDEX} is missing; save or download it again"
            if parts
            else "it has no weights in safetensors (model.safetensors), and others are not read; "
            "save or download the model in this format",
        )
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, Mapping) or not all(isinstance(one, str) for one in shards.values()):
        _cannot_load(folder, f"{_INDEX} has no weight_map; save or download it again")
    for name in sorted(set(shards.values())):
        if not (folder / name).exists():
            _cannot_load(
                folder, f"{_INDEX} lists {name}, which is missing; save or download it again"
            )


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_file(path, "subject.model")


def _cannot_load(folder: Path, reason: str) -> NoReturn:
    raise SubjectError(f"subject.model: {str(folder)!r} cannot be loaded: {reason}")
