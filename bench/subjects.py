"""Subjects to measure: the bundled one on drawn scenes, or the true shape of LLaVA-1.5-7B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.encode import TEMPLATE, TEXT, VISUAL, EncodedSample, encode
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.settings import SubjectSettings

BUNDLED = Path(__file__).parent.parent / "infra" / "subject" / "llava-scenes"
SHAPES = ("bundled", "llava-1.5-7b")

Samples = list[tuple[int, EncodedSample]]

_IMAGE_TOKEN = 32_000
_PATCHES = 24
_QUESTION = 20
"""Template tokens, about the number in LLaVA's prompt."""


def subject_and_samples(shape: str, count: int, device: torch.device) -> tuple[Subject, Samples]:
    """Return a subject of one of SHAPES, and `count` encoded samples."""
    if shape == "bundled":
        subject = load_subject(SubjectSettings(model=str(BUNDLED)), device)
        return subject, scene_samples(subject, count)
    return _llava_7b(device), _synthetic_samples(count)


def scene_samples(subject: Subject, count: int) -> Samples:
    """Return encoded drawn scenes with their true descriptions."""
    scenes = Scenes(count=count, seed=77)
    return [
        (sample_id, encode(subject, [scenes.open_image(record.images[0]).pixels], record.text))
        for sample_id, record in enumerate(scenes.records())
    ]


def _llava_7b(device: torch.device) -> Subject:
    """Return a model with LLaVA-1.5-7B's classes and sizes and random weights: equally fast."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
        ),
        text_config=LlamaConfig(vocab_size=32_064, max_position_embeddings=4096),
        image_token_id=_IMAGE_TOKEN,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model: Any = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    settings = SubjectSettings(model="llava-1.5-7b, random weights", dtype="bfloat16")
    return Subject(settings, model.eval(), None, device)


def _synthetic_samples(count: int) -> Samples:
    """Return samples in LLaVA-1.5's format: 576 visual tokens, and texts of 60 to 199 tokens."""
    rng = np.random.default_rng(0)
    region = Region(0, _PATCHES, _PATCHES, 0, 0, 336, 336)
    samples = []
    for sample_id in range(count):
        n_text = int(rng.integers(60, 200))
        runs = [(TEMPLATE, 5), (VISUAL, _PATCHES**2), (TEMPLATE, _QUESTION), (TEXT, n_text)]
        roles = torch.cat([torch.full((length,), role, dtype=torch.int8) for role, length in runs])
        input_ids = torch.from_numpy(rng.integers(5, 30_000, len(roles)))
        input_ids[roles == VISUAL] = _IMAGE_TOKEN
        pixels = torch.from_numpy(rng.normal(size=(1, 3, 336, 336)).astype(np.float32))
        pieces = ("x",) * n_text
        samples.append(
            (
                sample_id,
                EncodedSample(input_ids, roles, {"pixel_values": pixels}, pieces, (region,)),
            )
        )
    return samples
