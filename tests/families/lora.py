"""Saves a LoRA adapter that changes one neuron."""

from __future__ import annotations

from pathlib import Path

from peft import LoraConfig, get_peft_model

from neuron_atlas.tasks.subject.load import load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings


def adapter_of_one_neuron(model: Path, layer: int, neuron: int, folder: Path) -> Path:
    """Save a rank-1 adapter that changes one row of one layer's gate_proj into `folder`."""
    base = load_subject(SubjectSettings(model=str(model))).model
    target = rf".*language_model\.layers\.{layer}\.mlp\.gate_proj"
    adapted = get_peft_model(base, LoraConfig(r=1, lora_alpha=1, target_modules=target))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.zero_()[neuron] = 1
        elif "lora_A" in name:
            weight.data.fill_(0.5)
    adapted.save_pretrained(folder)
    return folder
