"""Say which types of vision-language models cannot be subjects, and why."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from neuron_atlas.tasks.subject.settings import SubjectError

_CROSS_ATTENTION = ("cross_attention_layers", "cross_layer_interval", "aligner_add_every_x_layer")
"""Fields of language models that read image features by cross-attention."""


def check_known(name: str, model_type: str) -> None:
    """Raise SubjectError for a model_type that transformers does not know. name: for messages."""
    if model_type not in CONFIG_MAPPING:
        raise SubjectError(
            f"subject.model: transformers knows no model type {model_type!r} of {name!r} "
            "(model_type in config.json); correct it, or use a newer version of transformers"
        )


def check_type(name: str, config: Any) -> None:
    """Raise SubjectError for a type of model that cannot be a subject. name: for messages."""
    reason = why_refused(config)
    if reason:
        raise SubjectError(f"subject.model: {name!r} is a {config.model_type!r} model {reason}")


def why_refused(config: Any) -> str:
    """Return why a model type cannot be a subject, as the rest of a sentence, or ""."""
    known = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if not known and getattr(config, "vision_config", None) is None:
        return "without a vision tower; neuron-atlas studies vision-language models"
    if not known:
        return (
            "which transformers does not load for images and text (image-text-to-text); "
            "neuron-atlas studies vision-language models"
        )
    if config.is_encoder_decoder:
        return "with an encoder, whose decoder has no visual tokens in its sequence"
    text = config.get_text_config()
    if any(getattr(one, field, None) for one in (config, text) for field in _CROSS_ATTENTION):
        return (
            "whose decoder reads image features by cross-attention: it has no visual tokens in its "
            "sequence"
        )
    return ""
