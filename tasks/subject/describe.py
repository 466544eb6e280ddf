"""Have the subject describe images, and lay out each sample's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import torch
from PIL import Image

from tasks.artifacts import DESCRIPTIONS
from tasks.subject.encode import encode, question_prompt
from tasks.subject.load import Subject

OpenImage = Callable[[str], Image.Image]


def describe_samples(
    subject: Subject,
    samples: Sequence[dict],
    open_image: OpenImage,
    *,
    generate: bool,
    batch_size: int,
    max_new_tokens: int,
) -> pa.Table:
    """The `descriptions` rows of `samples` (rows of the `samples` table, all of them ok).

    generate: the subject answers the question, greedily; otherwise the dataset's text is taken.
    """
    rows = []
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        images = [open_image(row["image"]) for row in batch]
        if generate:
            answers = generate_descriptions(subject, images, max_new_tokens)
        else:
            answers = [(row["text"].strip(), True) for row in batch]
        for row, image, (text, finished) in zip(batch, images, answers, strict=True):
            rows.append(_description(subject, row, image, text, finished, generate))
    return pa.Table.from_pylist(rows, schema=DESCRIPTIONS.schema)


def generate_descriptions(
    subject: Subject, images: Sequence[Image.Image], max_new_tokens: int
) -> list[tuple[str, bool]]:
    """The subject's greedy answer to the question for each image, and whether it came to an end."""
    tokenizer = subject.processor.tokenizer
    inputs = subject.processor(
        images=list(images),
        text=[question_prompt(subject)] * len(images),
        padding=True,
        padding_side="left",
        return_tensors="pt",
    ).to(subject.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(subject.model.dtype)
    with torch.inference_mode():
        generated = subject.model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False
        )
    answers = generated[:, inputs["input_ids"].shape[1] :]
    ends = subject.model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [
        (text.strip(), not ends.isdisjoint(answer))
        for text, answer in zip(texts, answers.tolist(), strict=True)
    ]


def _description(
    subject: Subject, row: dict, image: Image.Image, text: str, finished: bool, generated: bool
) -> dict:
    described = {
        "sample_id": row["sample_id"],
        "text": text,
        "text_source": "generated" if generated else "given",
        "tokens": [],
        "n_visual": 0,
        "n_text": 0,
        "grid_height": 0,
        "grid_width": 0,
        "view": [0.0] * 4,
        "status": "empty_text",
        "reason": "the subject answered nothing" if generated else "the dataset gives no text",
    }
    if not text:
        return described
    encoded = encode(subject, image, text)
    return described | {
        "tokens": list(encoded.pieces),
        "n_visual": encoded.n_visual,
        "n_text": encoded.n_text,
        "grid_height": encoded.grid[0],
        "grid_width": encoded.grid[1],
        "view": list(encoded.view),
        "status": "ok" if finished else "truncated",
        "reason": "" if finished else "the answer reached describe.max_new_tokens",
    }
