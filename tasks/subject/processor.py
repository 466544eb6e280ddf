"""Load a subject's processor: its tokenizer and image processor, without video and audio."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import PROCESSOR_MAPPING, PreTrainedConfig, ProcessorMixin
from transformers.processing_utils import PROCESSOR_NAME
from transformers.utils import cached_file

from neuron_atlas.tasks.subject.settings import SubjectError

_UNUSED = ("video_processor", "feature_extractor")
"""Parts of a processor for video and audio."""


def load_processor(name_or_path: str, config: PreTrainedConfig, revision: str | None) -> Any:
    """Load the processor of a model's family. name_or_path: a folder, or a Hugging Face id.

    Images are processed with Pillow, so a subject sees the same pixels on every machine. Resizing
    with torchvision, which not every machine has, differs in the last digits. Only types whose
    image processor has no version for Pillow use torchvision. Raises SubjectError.
    """
    return without_video(_processor_class(name_or_path, config, revision)).from_pretrained(
        name_or_path, revision=revision, trust_remote_code=False, backend="pil"
    )


def without_video(family: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Return the same processor class without its video processor and audio feature extractor.

    The video processor cannot be constructed without torchvision, and images and text do not use
    either.
    """
    attributes = family.get_attributes()
    if not set(_UNUSED) & set(attributes):
        return family

    class Parts(ProcessorMixin):
        """The constructor that the family calls, with all parts in the order of its own."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            given = dict(zip(attributes, args, strict=False)) | kwargs
            super().__init__(**{name: one for name, one in given.items() if name not in _UNUSED})
            # Constructors read some settings of the video processor that images have as well.
            self.video_processor, self.feature_extractor = self.image_processor, None

    class StillImages(family, Parts):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in attributes if name not in _UNUSED]

        @classmethod
        def _get_arguments_from_pretrained(cls, *args: Any, **kwargs: Any) -> list[Any]:
            loaded = super()._get_arguments_from_pretrained(*args, **kwargs)
            parts = dict(zip(cls.get_attributes(), loaded, strict=True))
            return [parts.get(name) for name in attributes]

        def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
            # SmolVLM's own method first reads settings of the video processor.
            return ProcessorMixin.apply_chat_template(self, *args, **kwargs)

    StillImages.__name__ = family.__name__
    return StillImages


def _processor_class(
    name_or_path: str, config: PreTrainedConfig, revision: str | None
) -> type[ProcessorMixin]:
    """Return the class of a model type's processor, or the one that its saved files name."""
    if type(config) in PROCESSOR_MAPPING:
        return PROCESSOR_MAPPING[type(config)]
    file = cached_file(
        name_or_path, PROCESSOR_NAME, revision=revision, _raise_exceptions_for_missing_entries=False
    )
    stored, _ = ProcessorMixin.get_processor_dict(name_or_path) if file else ({}, {})
    found = getattr(transformers, str(stored.get("processor_class")), None)
    if found is None:
        raise SubjectError(
            f"subject.model: transformers has no processor for the model type "
            f"{config.model_type!r}, and {PROCESSOR_NAME} of {name_or_path!r} names none"
        )
    return found
