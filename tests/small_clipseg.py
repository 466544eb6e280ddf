"""A small CLIPSeg of the real classes, made without a network."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    ViTImageProcessorPil,
)

_IMAGE_PX, _PATCH_PX = 64, 8
LONGEST_TEXT = 24
_WIDTH = 48
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORDS = "image regions that show a red green blue circle square ; the word in the text ."


def build(folder: Path, seed: int = 0) -> Path:
    """Save an untrained model with its processor into `folder`."""
    model, processor = _small_clipseg(seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _small_clipseg(seed: int) -> tuple[CLIPSegForImageSegmentation, CLIPSegProcessor]:
    words = tokenizer()
    torch.manual_seed(seed)
    layers = {"hidden_size": _WIDTH, "intermediate_size": 2 * _WIDTH, "num_attention_heads": 4}
    config = CLIPSegConfig(
        text_config={
            **layers,
            "num_hidden_layers": 2,
            "vocab_size": len(words),
            "max_position_embeddings": LONGEST_TEXT,
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
        },
        vision_config={
            **layers,
            "num_hidden_layers": 4,
            "image_size": _IMAGE_PX,
            "patch_size": _PATCH_PX,
        },
        projection_dim=_WIDTH,
        extract_layers=[0, 1, 2],
        reduce_dim=32,
        decoder_intermediate_size=64,
        use_complex_transposed_convolution=True,
    )
    model = CLIPSegForImageSegmentation(config).eval()
    # With the small random weights of a new model all images and all texts look nearly alike.
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5 if "embedding" in name else 0.15)
    size = {"height": _IMAGE_PX, "width": _IMAGE_PX}
    return model, CLIPSegProcessor(ViTImageProcessorPil(size=size), words)


def tokenizer() -> CLIPTokenizer:
    """A tokenizer of a few words."""
    raw = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([_WORDS], trainer)
    vocabulary = raw.get_vocab()
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    for token in _SPECIAL:
        vocabulary[token] = len(vocabulary)
    merges = [tuple(merge) for merge in _merges(raw)]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LONGEST_TEXT)


def _merges(raw: Tokenizer) -> list[list[str]]:
    import json

    return json.loads(raw.to_str())["model"]["merges"]
