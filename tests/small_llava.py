"""A small LLaVA around any language model, with random weights."""

from pathlib import Path

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings

_SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


def llava_around(subject: Subject, folder: Path, text: dict) -> Subject:
    """A small LLaVA around another language model, with the bundled processor."""
    seen = subject.model.config.vision_config
    pixels = {"image_size": seen.image_size, "patch_size": seen.patch_size}
    vision = {**_SIZES, "intermediate_size": 8, **pixels}
    config = LlavaConfig(
        text_config={
            "tie_word_embeddings": False,
            "pad_token_id": 0,
            **_SIZES,
            "intermediate_size": 24,
            "vocab_size": 512,
            **text,
        },
        vision_config={"model_type": "clip_vision_model", **vision},
        image_token_index=subject.image_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    subject.processor.save_pretrained(folder)
    return load_subject(SubjectSettings(model=str(folder)))
