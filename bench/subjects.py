"""Subjects to measure, with their samples: the bundled subject, or random weights of a shape."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from bench.wide import BUNDLED, wide_model
from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.scenes import Scenes
from neuron_atlas.tasks.subject.encode import EncodedSample, encode
from neuron_atlas.tasks.subject.families import FAMILIES
from neuron_atlas.tasks.subject.layout import Layout
from neuron_atlas.tasks.subject.load import Subject, load_subject
from neuron_atlas.tasks.subject.processor import load_processor
from neuron_atlas.tasks.subject.settings import SubjectSettings

SHAPES = ("bundled", "wide", "llava-1.5-7b", "llava-tiny")
"""The bundled subject; one layer of `bench.model`; LLaVA-1.5-7B; and its classes with small sizes,
for tests."""

Samples = list[tuple[int, EncodedSample]]

_SEED = 77
_VOCABULARY = 32_064
_PATCH = 14
_LONG_TEXT = (60, 200)
"""Range of the tokens in a description by LLaVA-1.5."""


@dataclass(frozen=True)
class LlavaSizes:
    """Sizes of a LLaVA: of its vision tower, then of its language model."""

    image: int
    vision_hidden: int
    vision_layers: int
    hidden: int
    neurons: int
    layers: int
    heads: int


LLAVA_7B = LlavaSizes(336, 1024, 24, 4096, 11_008, 32, 32)
LLAVA_TINY = LlavaSizes(56, 32, 3, 64, 96, 2, 2)


@dataclass(frozen=True)
class Subjects:
    """A subject with its samples.

    described: sample_id, n_visual, n_text and status of each sample, as `plan_shards` reads them.
    encoded: the samples as inputs of the subject.
    """

    subject: Subject
    catalog: Catalog
    described: pa.Table
    encoded: Samples


def subject_and_samples(
    shape: str, count: int, device: torch.device, layers: int | None = None
) -> Subjects:
    """Return a subject of one of SHAPES, and `count` drawn scenes with their descriptions.

    layers: the number of layers; None for the shape's own. The bundled subject ignores it.
    """
    if shape == "bundled":
        subject = load_subject(SubjectSettings(model=str(BUNDLED)), device)
        return _with_scenes(subject, Scenes(count=count, seed=_SEED), (0, 0))
    if shape == "wide":
        subject = _with_processor(wide_model(layers or 1).to(device), shape, device)
        return _with_scenes(subject, Scenes(count=count, seed=_SEED), (0, 0))
    sizes = LLAVA_7B if shape == "llava-1.5-7b" else LLAVA_TINY
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model = _llava(sizes, layers or sizes.layers, dtype, device)
    subject = _with_processor(model, shape, device)
    side = {"height": sizes.image, "width": sizes.image}
    subject.processor.image_processor = CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False
    )
    subject.processor.patch_size = _PATCH
    return _with_scenes(subject, Scenes(count=count, seed=_SEED, size=sizes.image), _LONG_TEXT)


def _with_processor(model: Any, shape: str, device: torch.device) -> Subject:
    """Return a model with random weights as a subject, with the bundled subject's processor."""
    processor = load_processor(str(BUNDLED), AutoConfig.from_pretrained(BUNDLED), None)
    dtype: Any = str(model.dtype).removeprefix("torch.")
    settings = SubjectSettings(model=f"{shape}, random weights", dtype=dtype)
    layout = Layout("known", FAMILIES[model.config.model_type])
    return Subject(settings, model.eval(), processor, device, layout)


def _llava(sizes: LlavaSizes, layers: int, dtype: torch.dtype, device: torch.device) -> Any:
    """Return a LLaVA with random weights: as fast as a trained one of these sizes."""
    bundled = AutoConfig.from_pretrained(BUNDLED)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=sizes.vision_hidden,
            intermediate_size=4 * sizes.vision_hidden,
            num_hidden_layers=sizes.vision_layers,
            num_attention_heads=max(2, sizes.vision_hidden // 64),
            image_size=sizes.image,
            patch_size=_PATCH,
            projection_dim=768,
        ),
        text_config=LlamaConfig(
            vocab_size=_VOCABULARY,
            hidden_size=sizes.hidden,
            intermediate_size=sizes.neurons,
            num_hidden_layers=layers,
            num_attention_heads=sizes.heads,
            num_key_value_heads=sizes.heads,
            max_position_embeddings=4096,
        ),
        image_token_id=bundled.image_token_id,
        image_seq_length=(sizes.image // _PATCH) ** 2,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)


def _with_scenes(subject: Subject, scenes: Scenes, text_tokens: tuple[int, int]) -> Subjects:
    """Return the subject with scenes as its samples. text_tokens: range from which the number of
    tokens of each text is drawn; (0, 0) for the scenes' own texts."""
    rng = np.random.default_rng(0)
    sentences = [record.text for record in islice(scenes.records(), 64)]
    samples: dict[int, Sample] = {}
    encoded: Samples = []
    for sample_id, record in enumerate(scenes.records()):
        image = scenes.open_image(record.image).pixels
        text = record.text
        if text_tokens != (0, 0):
            text = _text_of(subject, rng, sentences, int(rng.integers(*text_tokens)))
        one = encode(subject, [image], text)
        encoded.append((sample_id, one))
        samples[sample_id] = Sample(
            sample_id=sample_id,
            source_id=record.source_id,
            images=record.images,
            text=text,
            tokens=one.pieces,
            regions=one.regions,
            width=image.width,
            height=image.height,
        )
    described = pa.table(
        {
            "sample_id": pa.array(samples, pa.int32()),
            "n_visual": pa.array([one.n_visual for _, one in encoded], pa.int32()),
            "n_text": pa.array([one.n_text for _, one in encoded], pa.int32()),
            "status": ["ok"] * len(samples),
        }
    )
    return Subjects(subject, Catalog(samples, source=scenes), described, encoded)


def _text_of(subject: Subject, rng: np.random.Generator, sentences: list[str], tokens: int) -> str:
    """Return sentences with about `tokens` tokens in total."""
    tokenizer = subject.processor.tokenizer
    text = ""
    while True:
        longer = f"{text} {sentences[rng.integers(len(sentences))]}".strip()
        ids = tokenizer(longer, add_special_tokens=False)["input_ids"]
        if len(ids) >= tokens:
            return str(tokenizer.decode(ids[:tokens]).strip())
        text = longer
