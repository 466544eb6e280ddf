"""Load a vision-language model and its processor as the subject of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from tasks.subject.settings import SubjectError, SubjectSettings, model_folder


@dataclass(frozen=True)
class Subject:
    """A loaded model in evaluation mode, with the processor that feeds it.

    device: where its inputs go, which is where its embeddings lie.
    """

    settings: SubjectSettings
    model: Any
    processor: Any
    device: torch.device

    @property
    def image_token_id(self) -> int:
        """The token that stands for one visual token in input_ids."""
        return int(self.model.config.image_token_id)

    @property
    def image_token(self) -> str:
        """The same token as it is written in a prompt."""
        return str(self.processor.tokenizer.convert_ids_to_tokens(self.image_token_id))


def load_subject(
    settings: SubjectSettings, device: str | torch.device = "cpu", threads: int | None = None
) -> Subject:
    """Load weights from safetensors only, without remote code. Raises SubjectError.

    device: "auto" spreads the layers over all GPUs in sight. threads: of this process's
    computations on a CPU; None leaves them as they are.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    where = str(model_folder(settings) or settings.model)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        config = AutoConfig.from_pretrained(
            where, revision=settings.revision, trust_remote_code=False
        )
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
            device_map=_device_map(device),
        )
        processor = AutoProcessor.from_pretrained(
            where, revision=settings.revision, trust_remote_code=False, backend="pil"
        )
    except SubjectError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SubjectError(f"subject.model: {where!r} cannot be loaded: {first}") from error
    first = next(iter(model.get_input_embeddings().parameters()))
    return Subject(settings, model.eval(), processor, first.device)


def _device_map(device: str | torch.device) -> Any:
    if device == "auto":
        return "auto"
    return {"": device} if torch.device(device).type != "cpu" else None
