"""Load a subject's processor: its tokenizer and image processor, without the video processor."""

from __future__ import annotations

from typing import Any

from transformers import PROCESSOR_MAPPING, PreTrainedConfig, ProcessorMixin


def load_processor(name_or_path: str, config: PreTrainedConfig, revision: str | None) -> Any:
    """Load the processor of a model's family. name_or_path: a folder, or a Hugging Face id.

    Images are processed with Pillow, so a subject sees the same pixels on every machine. Resizing
    with torchvision, which not every machine has, differs in the last digits.
    """
    return without_video(PROCESSOR_MAPPING[type(config)]).from_pretrained(
        name_or_path, revision=revision, trust_remote_code=False, backend="pil"
    )


def without_video(family: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Return the same processor class without its video processor.

    The video processor cannot be constructed without torchvision, and images and text do not use
    it.
    """
    if "video_processor" not in family.get_attributes():
        return family

    class StillImages(family):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any) -> list[Any]:
            # In every family, the video processor is the last of three arguments.
            return [*super()._get_arguments_from_pretrained(*args, **kwargs), None]

        def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
            # SmolVLM's own method first reads settings of the video processor.
            return ProcessorMixin.apply_chat_template(self, *args, **kwargs)

    StillImages.__name__ = family.__name__
    return StillImages
