"""A small CLIPSeg that learnt drawn scenes: where what is red, where nothing is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

from tasks.artifacts import CONCEPT_GRID
from tasks.samples.scenes import COLORS, Scenes
from tests.small_clipseg import IMAGE_PX, small_clipseg

SAYINGS = (
    'Image regions that show "{0}"',
    'Image regions that show "{0}"; the word "{0}" in the text',
    "{0} regions of a picture",
)
LESSONS = Scenes(count=1000, seed=777_000, size=IMAGE_PX)
_RATE = 2e-3
_BATCH = 64


@dataclass(frozen=True)
class _Lessons:
    pixels: torch.Tensor
    """[scenes, 3, px, px]"""
    masks: torch.Tensor
    """[scenes, concepts, grid, grid]"""


def train(steps: int, seed: int = 0) -> tuple[CLIPSegForImageSegmentation, CLIPSegProcessor]:
    """Supervised by the true masks of a colour, under what explainers say of it."""
    concepts = list(COLORS)
    model, processor = small_clipseg(
        seed, [saying.format(name) for saying in SAYINGS for name in concepts]
    )
    lessons = _lessons(processor, concepts)
    tokens = processor.tokenizer(
        [saying.format(name) for name in concepts for saying in SAYINGS],
        padding=True,
        return_tensors="pt",
    )
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    for _ in range(steps):
        scenes = rng.integers(len(lessons.pixels), size=_BATCH)
        there = lessons.masks[scenes].amax((2, 3)) > 0
        # Half of the questions are about what is in the scene.
        asked = np.array(
            [
                rng.choice(np.flatnonzero(row)) if rng.random() < 0.5 else rng.integers(len(row))
                for row in there.numpy()
            ]
        )
        said = asked * len(SAYINGS) + rng.integers(len(SAYINGS), size=_BATCH)
        logits = _logits(model, lessons.pixels[scenes], {k: v[said] for k, v in tokens.items()})
        wanted = lessons.masks[scenes, asked]
        wanted = interpolate(wanted[:, None], logits.shape[1:], mode="area")[:, 0]
        loss = binary_cross_entropy_with_logits(logits, wanted)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval(), processor


def _logits(model: CLIPSegForImageSegmentation, pixels: torch.Tensor, tokens: dict) -> torch.Tensor:
    # The model's own forward pass would not let the image's and the text's part learn.
    seen = model.clip.vision_model(pixels, output_hidden_states=True).hidden_states
    told = model.clip.get_text_features(**tokens).pooler_output
    return model.decoder(tuple(seen[layer + 1] for layer in model.extract_layers), told).logits


def _lessons(processor: CLIPSegProcessor, concepts: list[str]) -> _Lessons:
    images = [record.image for record in LESSONS.records()]
    masks = np.zeros((len(images), len(concepts), CONCEPT_GRID, CONCEPT_GRID), np.float32)
    for number, image in enumerate(images):
        for concept in LESSONS.concepts(image):
            if concept.name in concepts:
                masks[number, concepts.index(concept.name)] = (
                    concept.mask.reshape(CONCEPT_GRID, CONCEPT_GRID) / 255
                )
    pictures = [LESSONS.open_image(image).pixels for image in images]
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    return _Lessons(pixels, torch.from_numpy(masks))
