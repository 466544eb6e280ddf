"""A small CLIP of the real classes, made without a network."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, ViTImageProcessorPil

from tests.small_clipseg import LONGEST_TEXT, tokenizer

WIDTH = 32
_LAYERS = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
}


def build(folder: Path, seed: int = 0) -> Path:
    """Save an untrained model with its processor into `folder`."""
    words = tokenizer()
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={
            **_LAYERS,
            "vocab_size": len(words),
            "max_position_embeddings": LONGEST_TEXT,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
        },
        vision_config={**_LAYERS, "image_size": 32, "patch_size": 8},
        projection_dim=WIDTH,
    )
    model = CLIPModel(config).eval()
    # With the small random weights of a new model all images and all texts look nearly alike.
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5 if "embedding" in name else 0.15)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPProcessor(ViTImageProcessorPil(size=size), words).save_pretrained(folder)
    return folder
