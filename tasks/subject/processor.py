"""The processor that feeds a subject: its tokenizer and image processor, and nothing for video."""

from __future__ import annotations

from typing import Any

from transformers import PROCESSOR_MAPPING, PreTrainedConfig, ProcessorMixin


def load_processor(where: str, config: PreTrainedConfig, revision: str | None) -> Any:
    """The processor of a model's family, from the folder or Hugging Face id `where`.

    Images are processed with Pillow, so that a subject sees the same pixels on every machine:
    with torchvision, which not every machine has, resizing differs in the last digits.
    """
    return without_video(PROCESSOR_MAPPING[type(config)]).from_pretrained(
        where, revision=revision, trust_remote_code=False, backend="pil"
    )


def without_video(family: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """The same processor class without its video part.

    That part cannot even be made without torchvision, and no image or text passes through it.
    """
    if "video_processor" not in family.get_attributes():
        return family

    class StillImages(family):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any) -> list[Any]:
            # Every family takes the video part as the last of its three.
            return [*super()._get_arguments_from_pretrained(*args, **kwargs), None]

        def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
            # SmolVLM's own asks the video part for its settings first.
            return ProcessorMixin.apply_chat_template(self, *args, **kwargs)

    StillImages.__name__ = family.__name__
    return StillImages
