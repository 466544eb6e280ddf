"""Load a vision-language model and its processor as the subject of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from neuron_atlas.tasks.models.pretrained import ModelError, check_complete, why_not_loaded
from neuron_atlas.tasks.subject.families import FAMILIES
from neuron_atlas.tasks.subject.processor import load_processor
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings, model_folder


@dataclass(frozen=True)
class Subject:
    """Loaded model in evaluation mode, with its processor.

    device: the device of its input embeddings, and so of its inputs.
    """

    settings: SubjectSettings
    model: Any
    processor: Any
    device: torch.device

    @property
    def family(self) -> str:
        """Key of the model's adapter in `FAMILIES`."""
        return str(self.model.config.model_type)

    @property
    def image_token_id(self) -> int:
        """Token id of the placeholder in input_ids that one image feature replaces."""
        return int(self.model.config.image_token_id)

    @property
    def image_token(self) -> str:
        """Token that stands for a whole image in a prompt."""
        return str(self.processor.image_token)

    @property
    def markers(self) -> tuple[str, ...]:
        """Strings that a text must not contain: they would be read as an image or a video."""
        placeholder = self.processor.tokenizer.convert_ids_to_tokens(self.image_token_id)
        video = getattr(self.processor, "video_token", None)
        return tuple(dict.fromkeys(filter(None, (self.image_token, placeholder, video))))


def load_subject(
    settings: SubjectSettings, device: str | torch.device = "cpu", threads: int | None = None
) -> Subject:
    """Load weights from safetensors only, without remote code. Raises SubjectError.

    device: "auto" spreads the layers over all visible GPUs. threads: CPU threads of torch in this
    process; None does not change them.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    name = str(model_folder(settings) or settings.model)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        config = AutoConfig.from_pretrained(
            name, revision=settings.revision, trust_remote_code=False
        )
        _check_family(name, config)
        model, weights = AutoModelForImageTextToText.from_pretrained(
            name,
            revision=settings.revision,
            dtype=getattr(torch, settings.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            device_map=_device_map(device),
            output_loading_info=True,
        )
        check_complete(name, "subject.model", weights["missing_keys"])
        _check_spread(name, getattr(model, "hf_device_map", {}))
        processor = load_processor(name, config, settings.revision)
    except SubjectError:
        raise
    except ModelError as error:
        raise SubjectError(str(error)) from error
    except Exception as error:
        raise SubjectError(why_not_loaded(settings.model, "subject.model", error)) from error
    first = next(iter(model.get_input_embeddings().parameters()))
    return Subject(settings, model.eval(), processor, first.device)


def _check_spread(name: str, device_map: Mapping[str, Any]) -> None:
    """Raise SubjectError if a part of the subject is in host memory or on disk: hooks do not see
    that part, and a run would take days."""
    devices = {str(device) for device in device_map.values()}
    if len(devices) > 1 and devices & {"cpu", "disk"}:
        raise SubjectError(
            f"subject.model: {name!r} does not fit on {len(devices - {'cpu', 'disk'})} GPU(s); "
            "raise cluster.gpus_per_actor, or use a smaller subject"
        )


def _device_map(device: str | torch.device) -> Any:
    if device == "auto":
        return "auto"
    return {"": device} if torch.device(device).type != "cpu" else None


def _check_family(name: str, config: Any) -> None:
    if not hasattr(config, "vision_config"):
        raise SubjectError(
            f"subject.model: {name!r} is a {config.model_type!r} model without a vision tower; "
            "neuron-atlas studies vision-language models"
        )
    if config.model_type not in FAMILIES:
        raise SubjectError(
            f"subject.model: no adapter for the model family {config.model_type!r} of {name!r}; "
            f"supported families: {', '.join(FAMILIES)} (tasks/subject/families)"
        )
