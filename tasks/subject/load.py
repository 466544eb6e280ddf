"""Load a vision-language model and its processor as the subject of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class SubjectSettings:
    """Which model is studied, and the question that it is asked about every image.

    model: a folder, or a Hugging Face model id; revision: a commit or tag of the latter.
    dtype: the number format of weights and activations.
    """

    model: str
    revision: str | None = None
    dtype: Dtype = "float32"
    question: str = "Could you describe the image?"


@dataclass(frozen=True)
class Subject:
    """A loaded model in evaluation mode, with the processor that feeds it."""

    settings: SubjectSettings
    model: Any
    processor: Any
    device: torch.device

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)


class SubjectError(Exception):
    """The subject cannot be loaded or hooked; the message says which and what to do."""


def load_subject(settings: SubjectSettings, device: str | torch.device = "cpu") -> Subject:
    """Load weights from safetensors only, without remote code. Raises SubjectError."""
    where = settings.model
    if _looks_like_folder(where) and not Path(where).is_dir():
        raise SubjectError(
            f"subject.model: there is no folder {where!r}; "
            "name a folder with a saved model or a Hugging Face model id"
        )
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        config = AutoConfig.from_pretrained(where, revision=settings.revision)
        if not hasattr(config, "vision_config"):
            raise SubjectError(
                f"subject.model: {where!r} is a {config.model_type!r} model, which sees no images; "
                "neuron-atlas studies vision-language models"
            )
        model = AutoModelForImageTextToText.from_pretrained(
            where,
            revision=settings.revision,
            dtype=getattr(torch, settings.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            device_map={"": device} if torch.device(device).type != "cpu" else None,
        )
        processor = AutoProcessor.from_pretrained(
            where, revision=settings.revision, trust_remote_code=False, backend="pil"
        )
    except SubjectError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SubjectError(f"subject.model: {where!r} cannot be loaded: {first}") from error
    return Subject(settings, model.eval(), processor, torch.device(device))


def _looks_like_folder(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") > 1
