"""Build a LLaVA with many narrow layers: the neurons of LLaVA-1.5-7B, but a small hidden size.

Its forward pass is far cheaper per neuron than a 7B's, so what a program does per neuron is what a
run of it takes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

BUNDLED = Path(__file__).parent.parent / "infra" / "subject" / "llava-scenes"
LAYERS = 32
NEURONS = 11_008
HIDDEN = 64
_HEADS = 2
_SEED = 0
_PROCESSOR_FILES = (
    "chat_template.jinja",
    "generation_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def wide_model(
    layers: int = LAYERS, neurons: int = NEURONS, hidden: int = HIDDEN
) -> LlavaForConditionalGeneration:
    """Return a LLaVA with random weights of a fixed seed, float32.

    The vision tower, the vocabulary and the prompt are those of the bundled subject, whose
    processor it shares.
    """
    settings = json.loads((BUNDLED / "config.json").read_text(encoding="utf-8"))
    settings["text_config"] |= {
        "hidden_size": hidden,
        "head_dim": hidden // _HEADS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "intermediate_size": neurons,
        "num_hidden_layers": layers,
    }
    torch.manual_seed(_SEED)
    model: Any = LlavaForConditionalGeneration(LlavaConfig(**settings))
    return model.eval()


def save_wide_subject(
    folder: Path, layers: int = LAYERS, neurons: int = NEURONS, hidden: int = HIDDEN
) -> None:
    """Write the model and its processor into `folder`, in the form that `subject.model` names."""
    folder.mkdir(parents=True, exist_ok=True)
    wide_model(layers, neurons, hidden).save_pretrained(folder)
    for name in _PROCESSOR_FILES:
        shutil.copy(BUNDLED / name, folder / name)
