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
    """A loaded model in evaluation mode, with the processor that feeds it.

    device: where its inputs go, which is where its embeddings lie.
    """

    settings: SubjectSettings
    model: Any
    processor: Any
    device: torch.device

    @property
    def family(self) -> str:
        """The key of the model's adapter in `FAMILIES`."""
        return str(self.model.config.model_type)

    @property
    def image_token_id(self) -> int:
        """The placeholder in input_ids that one of an image's features takes the place of."""
        return int(self.model.config.image_token_id)

    @property
    def image_token(self) -> str:
        """What stands for a whole image in a prompt."""
        return str(self.processor.image_token)

    @property
    def markers(self) -> tuple[str, ...]:
        """What a text must not spell, for it would be read as an image or a video."""
        placeholder = self.processor.tokenizer.convert_ids_to_tokens(self.image_token_id)
        video = getattr(self.processor, "video_token", None)
        return tuple(dict.fromkeys(filter(None, (self.image_token, placeholder, video))))


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
        _check_family(where, config)
        model, weights = AutoModelForImageTextToText.from_pretrained(
            where,
            revision=settings.revision,
            dtype=getattr(torch, settings.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            device_map=_device_map(device),
            output_loading_info=True,
        )
        check_complete(where, "subject.model", weights["missing_keys"])
        _check_spread(where, getattr(model, "hf_device_map", {}))
        processor = load_processor(where, config, settings.revision)
    except SubjectError:
        raise
    except ModelError as error:
        raise SubjectError(str(error)) from error
    except Exception as error:
        raise SubjectError(why_not_loaded(settings.model, "subject.model", error)) from error
    first = next(iter(model.get_input_embeddings().parameters()))
    return Subject(settings, model.eval(), processor, first.device)


def _check_spread(where: str, places: Mapping[str, Any]) -> None:
    """Refuse a subject of which a part was left in host memory or on disk: hooks see nothing of
    it, and a run would take days."""
    devices = {str(place) for place in places.values()}
    if len(devices) > 1 and devices & {"cpu", "disk"}:
        raise SubjectError(
            f"subject.model: {where!r} does not fit on {len(devices - {'cpu', 'disk'})} GPU(s); "
            "raise cluster.gpus_per_actor, or take a smaller subject"
        )


def _device_map(device: str | torch.device) -> Any:
    if device == "auto":
        return "auto"
    return {"": device} if torch.device(device).type != "cpu" else None


def _check_family(where: str, config: Any) -> None:
    if not hasattr(config, "vision_config"):
        raise SubjectError(
            f"subject.model: {where!r} is a {config.model_type!r} model, which sees no images; "
            "neuron-atlas studies vision-language models"
        )
    if config.model_type not in FAMILIES:
        raise SubjectError(
            f"subject.model: {where!r} is of the family {config.model_type!r}, and there is no "
            f"adapter for it; known are {', '.join(FAMILIES)} (tasks/subject/families)"
        )
